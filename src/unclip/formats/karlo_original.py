"""Karlo's original checkpoints (https://github.com/kakaobrain/karlo): prior, decoder and upsamplers, a `.ckpt` file each.

They are Lightning checkpoints with a `state_dict` and no config: Karlo came in one size. Its CLIP is OpenAI's
`ViT-L-14.pt`, and the mean and standard deviation of image embeddings are in `ViT-L-14_stats.th`. Keys are `file/name`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import safe_open

from unclip.checkpoints.io import write_weights
from unclip.checkpoints.keymap import (
    CONVOLUTION,
    Row,
    Table,
    channel_major,
    interleaved,
    renamed,
    row,
    with_leading,
    within,
)
from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats import karlo
from unclip.formats.key_maps.clip import caption_by, openai_config, openai_table, space_name
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.formats.tokenizer import check_vocabulary
from unclip.formats.weights import open_weights
from unclip.networks.clip import ClipConfig
from unclip.networks.decoder import DecoderConfig
from unclip.networks.prior_diffusion import DiffusionPriorConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import UpsamplerConfig
from unclip.tokenizers.clip import ClipTokenizer

# Start of each file's name.
FILES = {
    "clip": "ViT-L-14.pt",
    "stats": "ViT-L-14_stats.th",
    "prior": "prior-ckpt",
    "decoder": "decoder-ckpt",
    "upsampler": "improved-sr-ckpt",
}

_RESBLOCK = renamed(
    {"norm1": "in_layers.0", "conv1": "in_layers.2", "embedding": "emb_layers.1", "norm2": "out_layers.0"}
    | {"conv2": "out_layers.3", "skip": "skip_connection"}
)


def unet_rows(config: UnetConfig) -> list[Row]:
    """Rows of a U-Net in OpenAI's layout, whose blocks are numbered consecutively."""
    attention = [
        *renamed({"norm": "norm"}),
        row("qkv.{p}", "qkv.{p}", form=interleaved(3, config.head_channels, convolution=True)),
        row("context_kv.{p}", "encoder_kv.{p}", form=interleaved(2, config.head_channels, convolution=True)),
        row("out.{p}", "proj_out.{p}", form=CONVOLUTION),
    ]
    levels, attending = len(config.multiples), config.attention_levels
    rows = renamed(
        {
            "label.linear_1": "time_embed.0",
            "label.linear_2": "time_embed.2",
            "entrance": "input_blocks.0.0",
            "exit_norm": "out.0",
            "exit": "out.2",
        }
    )
    number = 1
    for level in range(levels):
        for index in range(config.blocks):
            rows += within(f"down.{level}.resblocks.{index}.", f"input_blocks.{number}.0.", _RESBLOCK)
            if level in attending:
                rows += within(f"down.{level}.attentions.{index}.", f"input_blocks.{number}.1.", attention)
            number += 1
        if level < levels - 1:
            rows += within(f"down.{level}.resample.", f"input_blocks.{number}.0.", _RESBLOCK)
            number += 1
    rows += within("middle.resblock1.", "middle_block.0.", _RESBLOCK)
    if attending:
        rows += within("middle.attention.", "middle_block.1.", attention)
    rows += within("middle.resblock2.", f"middle_block.{2 if attending else 1}.", _RESBLOCK)
    number = 0
    for step, level in enumerate(reversed(range(levels))):
        for index in range(config.blocks + 1):
            rows += within(f"up.{step}.resblocks.{index}.", f"output_blocks.{number}.0.", _RESBLOCK)
            if level in attending:
                rows += within(f"up.{step}.attentions.{index}.", f"output_blocks.{number}.1.", attention)
            if level and index == config.blocks:
                last = 2 if level in attending else 1
                rows += within(f"up.{step}.resample.", f"output_blocks.{number}.{last}.", _RESBLOCK)
            number += 1
    return rows


def prior_table(config: DiffusionPriorConfig) -> Table:
    """Table of the prior and the statistics of embeddings beside it."""
    block = [
        *renamed({"norm_1": "ln_1", "norm_2": "ln_2", "mlp.0": "mlp.c_fc", "mlp.2": "mlp.c_proj"}),
        *renamed({"attention.out": "attn.c_proj"}),
        row("attention.qkv.{p}", "attn.c_qkv.{p}", form=interleaved(3, config.width // config.heads)),
    ]
    rows = [
        *renamed(
            {
                "label.linear_1": "time_embed.0",
                "label.linear_2": "time_embed.2",
                "image_in": "clip_img_proj",
                "text_in": "text_emb_proj",
                "states_in": "text_enc_proj",
                "norm_out": "final_ln",
                "image_out": "out_proj",
            }
        ),
        *within("transformer.blocks.{n}.", "transformer.resblocks.{n}.", block),
        row("query", "prd_emb", form=with_leading(2)),
        row("positions", "positional_embedding", form=with_leading(1)),
    ]
    stats = [row("embedding_mean", "stats/mean"), row("embedding_std", "stats/std")]
    return Table([*within("", "prior/model.", rows), *stats])


def decoder_table(config: DecoderConfig) -> Table:
    """Table of the decoder; CLIP's text tower belongs to the part `clip`."""
    assert isinstance(config.net, UnetConfig)
    projections = [
        *renamed(
            {
                "image_vector": "clip_emb",
                "caption.states": "text_seq_proj.0",
                "caption.norm": "text_seq_proj.1",
                "caption.vector": "text_feat_proj",
            }
        ),
        *renamed({"image_tokens": "clip_tok_proj"}, channel_major(config.image_tokens)),
        row("null_image", "cf_param"),
    ]
    return Table(
        [
            *within("net.", "decoder/model.", unet_rows(config.net)),
            *within("", "decoder/model.", projections),
        ]
    )


def upsampler_table(config: UpsamplerConfig) -> Table:
    """Table of both upsampling networks, which one file holds."""
    rows = unet_rows(config.net)
    return Table(
        [
            *within("net.", "upsampler/model_first_steps.", rows),
            *within("last_net.", "upsampler/model_last_step.", rows),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Configs of Karlo's networks, which the files do not store."""

    prior: DiffusionPriorConfig
    decoder: UnetConfig
    upsampler: UpsamplerConfig


# From Karlo's configs: prior_1B_vit_l.yaml, decoder_900M_vit_l.yaml, improved_sr_64_256_1.4B.yaml.
KARLO = Sizes(
    prior=DiffusionPriorConfig(
        embedding=768,
        context=77,
        text_width=768,
        width=2048,
        layers=20,
        heads=32,
        null="empty",
        clip_range=10.0,
    ),
    decoder=UnetConfig(
        in_channels=3,
        out_channels=6,
        channels=320,
        multiples=(1, 2, 3, 4),
        blocks=3,
        attention_levels=(1, 2, 3),
        head_channels=64,
        context_width=1536,
        vector_width=1280,
    ),
    upsampler=UpsamplerConfig(
        net=UnetConfig(in_channels=6, channels=320, multiples=(1, 2, 3, 4), blocks=3, scale_shift_norm=False),
        process=ProcessConfig(parametrization="eps", schedule="cosine"),
        low_size=64,
        high_size=256,
        last_step=True,
    ),
)


def decoder_config(sizes: Sizes, clip: ClipConfig, start: int) -> DecoderConfig:
    """Config of the decoder, which reads captions with the text tower of `clip`."""
    return DecoderConfig(
        net=sizes.decoder,
        size=sizes.upsampler.low_size,
        embedding=clip.embedding,
        image_tokens=4,
        caption=caption_by(clip.text, start),
        process=ProcessConfig(parametrization="eps", schedule="cosine", learned_variance=True),
    )


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """The model of a folder with one file of each kind, with the reader's tokenizer."""
    files = {}
    for name, start in FILES.items():
        candidates = sorted(folder.glob(f"{start}*"))
        if len(candidates) != 1:
            raise ModelError(f"{folder} holds {len(candidates)} files {start}*: Karlo has one")
        files[name] = candidates[0]
    tokenizer = reader.required_tokenizer(ClipTokenizer)
    safe = reader.safe(list(files.values()))
    return open_files(folder, dict(zip(files, safe)), tokenizer)


def open_files(folder: Path, files: Mapping[str, Path], tokenizer: ClipTokenizer) -> PublicModel:
    """The model from safetensors of the checkpoints, named as in `FILES`."""
    with open_weights({"": [files["clip"]]}) as readers:
        openai = openai_config({name: read() for name, read in readers.items()}, str(folder))
    clip = replace(openai, normalize=False)
    check_vocabulary(tokenizer, clip.text.vocabulary, folder)
    stats = named_statistics(files["stats"])
    sizes = KARLO
    decoder = decoder_config(sizes, clip, tokenizer.start)
    parts = {
        "clip": PublicPart(kind="clip", config=clip, table=openai_table(), files={"": (files["clip"],)}),
        "prior": PublicPart(
            kind="prior_diffusion",
            config=sizes.prior,
            table=prior_table(sizes.prior),
            files={"prior/": (files["prior"],), "stats/": (stats,)},
        ),
        "decoder": PublicPart(
            kind="decoder",
            config=decoder,
            table=decoder_table(decoder),
            files={"decoder/": (files["decoder"],)},
        ),
        "upsampler": PublicPart(
            kind="upsampler",
            config=sizes.upsampler,
            table=upsampler_table(sizes.upsampler),
            files={"upsampler/": (files["upsampler"],)},
        ),
    }
    return PublicModel(
        format="karlo original",
        folder=folder,
        licence="creativeml-openrail-m",
        parts=parts,
        tokenizer=lambda: tokenizer,
        defaults=karlo.DEFAULTS,
        space=space_name(clip),
    )


def named_statistics(file: Path) -> Path:
    """Copy of the statistics' file, a pair of tensors, with the names `mean` and `std`."""
    with safe_open(file, framework="pt") as stored:
        if sorted(stored.keys()) != ["0", "1"]:
            raise ModelError(f"{FILES['stats']} does not hold a pair of mean and standard deviation")
        named = {"mean": stored.get_tensor("0"), "std": stored.get_tensor("1")}
    target = file.with_name("statistics.safetensors")
    write_weights(target, named)
    return target
