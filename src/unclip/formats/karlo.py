"""Karlo in diffusers' layout: `UnCLIPPipeline` and `UnCLIPImageVariationPipeline` (kakaobrain/karlo-v1-alpha).

Keys are `component/name`: the decoder is made of two components.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unclip.checkpoints.keymap import Table, channel_major, renamed, row, within
from unclip.errors import ModelError
from unclip.formats.diffusers_folder import clip_config, clip_part, prior_part
from unclip.formats.folder import licence_of, read_json, weight_files
from unclip.formats.key_maps import clip as clip_map
from unclip.formats.key_maps import unet as unet_map
from unclip.formats.key_maps.options import Options, Reference
from unclip.formats.key_maps.scheduler import process_config
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.formats.tokenizer import read_tokenizer
from unclip.networks.clip import ClipConfig
from unclip.networks.decoder import DecoderConfig
from unclip.networks.upsampler import UpsamplerConfig
from unclip.stages.sampling import DecoderSampling, PriorSampling, Sampling, UpsamplerSampling

DEFAULTS = Sampling(
    prior=PriorSampling(steps=25, sampler="ddpm", guidance=4.0, candidates=1),
    decoder=DecoderSampling(steps=25, sampler="ddpm", guidance=8.0),
    upsamplers=(UpsamplerSampling(steps=7, sampler="ddpm"),),
)
"""Defaults of `UnCLIPPipeline`."""


def decoder_table(image_tokens: int) -> Table:
    """Table of two components: the U-Net and the projections. CLIP's text tower belongs to the part `clip`."""
    projections = [
        *renamed(
            {
                "image_vector": "clip_image_embeddings_project_to_time_embeddings",
                "caption.states": "encoder_hidden_states_proj",
                "caption.norm": "text_encoder_hidden_states_norm",
                "caption.vector": "embedding_proj",
            }
        ),
        *renamed({"image_tokens": "clip_extra_context_tokens_proj"}, channel_major(image_tokens)),
        row("null_image", "learned_classifier_free_guidance_embeddings"),
    ]
    rows = [
        *within("net.", "decoder/", unet_map.ROWS),
        *within("", "text_proj/", projections),
    ]
    return Table(rows)


PROJECTIONS = Reference(
    name="UnCLIPTextProjModel",
    honoured=frozenset(
        {"clip_extra_context_tokens", "clip_embeddings_dim", "time_embed_dim", "cross_attention_dim"}
    ),
)

UPSAMPLER = Table(
    [
        *within("net.", "super_res_first/", unet_map.ROWS),
        *within("last_net.", "super_res_last/", unet_map.ROWS),
    ]
)


def decoder_config(
    unet: Mapping[str, Any],
    projections: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    clip: ClipConfig,
    start: int,
    where: str,
) -> DecoderConfig:
    """Config from the decoder's U-Net, `UnCLIPTextProjModel`, the scheduler, and the CLIP whose text tower it reads."""
    net = unet_map.read_config(unet, f"{where}/decoder")
    options = Options(projections, f"{where}/text_proj")
    options.require(_class_name="UnCLIPTextProjModel")
    options.check(PROJECTIONS)
    given = options.take("clip_embeddings_dim", int, 768)
    options.equal("clip_embeddings_dim", given, clip.embedding, "the text_encoder's projection_dim")
    given = options.take("cross_attention_dim", int)
    options.equal("cross_attention_dim", given, net.context_width, "the decoder's")
    given = options.take("time_embed_dim", int)
    options.equal("time_embed_dim", given, net.embedding_width, "the width of the decoder's time embedding")
    # One projection reads the states, another the embedding, and the class has one width for both.
    width = "the text_encoder's hidden_size"
    options.equal("clip_embeddings_dim", clip.embedding, clip.text.width, width)
    return DecoderConfig(
        net=net,
        size=Options(unet, f"{where}/decoder").take("sample_size", int, 64),
        embedding=clip.embedding,
        image_tokens=options.take("clip_extra_context_tokens", int, 4),
        caption=clip_map.caption_by(clip.text, start),
        process=process_config(scheduler, f"{where}/decoder_scheduler"),
    )


def upsampler_config(
    first: Mapping[str, Any], last: Mapping[str, Any], scheduler: Mapping[str, Any], low_size: int, where: str
) -> UpsamplerConfig:
    """Config from both upsampling U-Nets, which must have one shape, and their scheduler."""
    net = unet_map.read_config(first, f"{where}/super_res_first")
    if unet_map.read_config(last, f"{where}/super_res_last") != net:
        raise ModelError(f"{where}: super_res_first and super_res_last have different configs")
    # Some folders omit it: Karlo upsamples 64 pixels to 256.
    size = Options(first, f"{where}/super_res_first").take("sample_size", int, 4 * low_size)
    options = Options(last, f"{where}/super_res_last")
    options.equal("sample_size", options.take("sample_size", int, size), size, "super_res_first's")
    return UpsamplerConfig(
        net=net,
        process=process_config(scheduler, f"{where}/super_res_scheduler"),
        low_size=low_size,
        high_size=size,
        last_step=True,
    )


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """All parts of a folder; the variations pipeline has no prior, the text-to-image pipeline no image tower."""
    where = str(folder)
    pipeline = read_json(folder / "model_index.json").get("_class_name")

    def config(component: str, name: str = "config.json") -> dict[str, Any]:
        return read_json(folder / component / name)

    def weights(component: str) -> dict[str, tuple[Path, ...]]:
        return {f"{component}/": weight_files(folder / component)}

    tokenizer = read_tokenizer(folder / "tokenizer")
    clip = clip_config(folder, tokenizer, vision=(folder / "image_encoder").is_dir())
    decoder = decoder_config(
        config("decoder"),
        config("text_proj"),
        config("decoder_scheduler", "scheduler_config.json"),
        clip,
        tokenizer.start,
        where,
    )
    upsampler = upsampler_config(
        config("super_res_first"),
        config("super_res_last"),
        config("super_res_scheduler", "scheduler_config.json"),
        decoder.size,
        where,
    )
    parts = {
        "clip": clip_part(folder, clip),
        "decoder": PublicPart(
            kind="decoder",
            config=decoder,
            table=decoder_table(decoder.image_tokens),
            files=weights("decoder") | weights("text_proj"),
        ),
        "upsampler": PublicPart(
            kind="upsampler",
            config=upsampler,
            table=UPSAMPLER,
            files=weights("super_res_first") | weights("super_res_last"),
        ),
    }
    if pipeline == "UnCLIPPipeline":
        parts["prior"] = prior_part(folder, clip, "prior_scheduler")
    return PublicModel(
        format="karlo",
        folder=folder,
        licence=licence_of(folder),
        parts=parts,
        tokenizer=lambda: tokenizer,
        defaults=DEFAULTS,
        space=clip_map.space_name(clip),
    )
