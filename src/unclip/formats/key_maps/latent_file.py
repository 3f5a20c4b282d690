"""Stable Diffusion in one file: names of CompVis' and Stability's code, and configs from the shapes of weights."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from unclip.checkpoints.keymap import Row, Table, renamed, row, stacked, within
from unclip.errors import ModelError
from unclip.formats.key_maps.autoencoder import SCALE
from unclip.formats.key_maps.clip import openai_text, text_tower
from unclip.formats.key_maps.latent_unet import POINTWISE, transformer_rows
from unclip.networks.autoencoder import AutoencoderConfig
from unclip.networks.clip import TextConfig
from unclip.networks.latent_unet import LatentUnetConfig

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
AVERAGED = "model_ema."
# Tables of the noise schedule, and notes of the averaging.
BUFFERS = (
    r"(betas|alphas_cumprod(_prev)?|sqrt_.*|log_one_minus_.*|posterior_.*|logvar|lvlb_weights|scale_factor)"
)
NOTES = rf"{re.escape(AVERAGED)}(decay|num_updates)"

_RESBLOCK = renamed(
    {"norm1": "in_layers.0", "conv1": "in_layers.2", "embedding": "emb_layers.1", "norm2": "out_layers.0"}
    | {"conv2": "out_layers.3", "skip": "skip_connection"}
)


def unet_rows(config: LatentUnetConfig, *, linear: bool) -> list[Row]:
    """Rows of the U-Net, whose blocks are numbered consecutively."""
    transformer = transformer_rows(linear=linear)
    levels, attending = len(config.multiples), config.attention_levels
    rows = renamed(
        {
            "label.linear_1": "time_embed.0",
            "label.linear_2": "time_embed.2",
            "vector.linear_1": "label_emb.0.0",
            "vector.linear_2": "label_emb.0.2",
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
                rows += within(f"down.{level}.attentions.{index}.", f"input_blocks.{number}.1.", transformer)
            number += 1
        if level < levels - 1:
            rows += renamed({f"down.{level}.resample.convolution": f"input_blocks.{number}.0.op"})
            number += 1
    rows += within("middle.resblock1.", "middle_block.0.", _RESBLOCK)
    rows += within("middle.attention.", "middle_block.1.", transformer)
    rows += within("middle.resblock2.", "middle_block.2.", _RESBLOCK)
    number = 0
    for step, level in enumerate(reversed(range(levels))):
        for index in range(config.blocks + 1):
            rows += within(f"up.{step}.resblocks.{index}.", f"output_blocks.{number}.0.", _RESBLOCK)
            if level in attending:
                rows += within(f"up.{step}.attentions.{index}.", f"output_blocks.{number}.1.", transformer)
            if level and index == config.blocks:
                last = 2 if level in attending else 1
                rows += renamed({f"up.{step}.resample.convolution": f"output_blocks.{number}.{last}.conv"})
            number += 1
    return rows


def decoder_table(
    config: LatentUnetConfig, ours: Mapping[str, Tensor], *, linear: bool, averaged: bool
) -> Table:
    """Table of the decoder, whose weights are `ours`: the last ones, or the averaged ones, which have no dots."""
    plain = Table(within("net.", UNET, unet_rows(config, linear=linear)))
    others = (rf"({re.escape(VAE)}|{re.escape(TEXT)}).*", BUFFERS, NOTES)
    if not averaged:
        return Table(plain.rows, (*others, rf"{re.escape(AVERAGED)}.*"))
    rows = [
        Row(name, tuple(_averaged(key) for key in one.theirs), one.form)
        for name, one in plain.plan(ours).items()
    ]
    return Table(rows, (*others, rf"{re.escape(UNET)}.*"))


def _averaged(key: str) -> str:
    return AVERAGED + key.removeprefix("model.").replace(".", "")


_MAP_RESBLOCK = renamed(
    {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "skip": "nin_shortcut"}
)
_MAP_ATTENTION = [
    *renamed({"norm": "norm"}),
    row(
        "qkv.weight",
        "q.weight",
        "k.weight",
        "v.weight",
        form=stacked(3)._replace(
            join=lambda parts: stacked(3).join([one.flatten(1) for one in parts]),
            split=lambda ours: [one[:, :, None, None] for one in stacked(3).split(ours)],
        ),
    ),
    row("qkv.bias", "q.bias", "k.bias", "v.bias", form=stacked(3)),
    *renamed({"out": "proj_out"}, POINTWISE),
]


def autoencoder_table(config: AutoencoderConfig) -> Table:
    """Table of the autoencoder; its decoder counts levels from the finest, as its encoder does."""
    common = [
        *renamed({"entrance": "conv_in", "exit_norm": "norm_out", "exit": "conv_out"}),
        *within("middle.resblock1.", "mid.block_1.", _MAP_RESBLOCK),
        *within("middle.attention.", "mid.attn_1.", _MAP_ATTENTION),
        *within("middle.resblock2.", "mid.block_2.", _MAP_RESBLOCK),
    ]
    encoder, decoder = list(common), list(common)
    levels = len(config.multiples)
    for rows, side, name in ((encoder, "down", "downsample"), (decoder, "up", "upsample")):
        for level in range(levels):
            ours = f"{side}.{level if side == 'down' else levels - 1 - level}."
            rows += within(f"{ours}resblocks.{{m}}.", f"{side}.{level}.block.{{m}}.", _MAP_RESBLOCK)
            rows += within(f"{ours}attentions.{{m}}.", f"{side}.{level}.attn.{{m}}.", _MAP_ATTENTION)
            rows += renamed({f"{ours}resample.convolution": f"{side}.{level}.{name}.conv"})
    rows = [*within("encoder.", "encoder.", encoder), *within("decoder.", "decoder.", decoder)]
    rows += renamed({"quant": "quant_conv", "post_quant": "post_quant_conv"})
    return Table(within("", VAE, rows), (rf"(?!{re.escape(VAE)}).*", rf"{re.escape(VAE)}loss\..*"))


def text_table(version: int, layers: int) -> Table:
    """Table of the text tower: transformers' names in version 1, OpenCLIP's in 2, whose last block is not read."""
    other = rf"(?!{re.escape(TEXT)}).*"
    if version == 1:
        table = text_tower(f"{TEXT}transformer.")
        return Table(table.rows, (*(rf".*{one}" for one in _POSITIONS), other), table.spellings)
    rows = [one for one in openai_text() if not one.ours.startswith("project.")]
    unread = rf"{re.escape(TEXT)}model\.(transformer\.resblocks\.{layers}\..*|text_projection|logit_scale|attn_mask)"
    return Table(within("text.", f"{TEXT}model.", rows), (unread, other))


_POSITIONS = (r"embeddings\.position_ids",)


def version_of(shapes: Mapping[str, Tensor], where: str) -> int:
    """1 or 2. Raises `ModelError` for a file without one of the three networks, and for Stable Diffusion XL."""
    for prefix, what in ((UNET, "U-Net"), (VAE, "autoencoder"), (TEXT, "text encoder")):
        if not any(name.startswith(prefix) for name in shapes):
            found = "Stable Diffusion XL" if any(name.startswith("conditioner.") for name in shapes) else ""
            more = f": it seems to hold {found}, which is not supported" if found else ""
            raise ModelError(f"{where} holds no {what} (no weight begins with {prefix}){more}")
    return 2 if any(name.startswith(f"{TEXT}model.") for name in shapes) else 1


def unet_config(shapes: Mapping[str, Tensor], version: int, where: str) -> LatentUnetConfig:
    """Config of the U-Net from its weights: 8 heads in version 1, heads of 64 channels in 2."""
    widths: list[int] = []
    attending: set[int] = set()
    blocks, number, level = 0, 1, 0
    while any(name.startswith(f"{UNET}input_blocks.{number}.") for name in shapes):
        start = f"{UNET}input_blocks.{number}."
        if f"{start}0.op.weight" in shapes:
            level += 1
        else:
            width = _shape(shapes, f"{start}0.in_layers.2.weight", where)[0]
            widths += [width] if len(widths) == level else []
            blocks += level == 0
            if f"{start}1.norm.weight" in shapes:
                attending.add(level)
        number += 1
    channels, entering = _shape(shapes, f"{UNET}input_blocks.0.0.weight", where)[:2]
    context = _shape(shapes, f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight", where)[1]
    vector = shapes.get(f"{UNET}label_emb.0.0.weight")
    return LatentUnetConfig(
        in_channels=entering,
        out_channels=_shape(shapes, f"{UNET}out.2.weight", where)[0],
        channels=channels,
        multiples=tuple(width // channels for width in widths),
        blocks=blocks,
        attention_levels=tuple(sorted(attending)),
        heads=tuple(8 if version == 1 else max(1, width // 64) for width in widths),
        transformer_layers=len(
            {
                found[1]
                for name in shapes
                if (
                    found := re.match(rf"{re.escape(UNET)}middle_block\.1\.transformer_blocks\.(\d+)\.", name)
                )
            }
        ),
        context_width=context,
        vector_width=None if vector is None else vector.shape[1],
    )


def is_linear(shapes: Mapping[str, Tensor], where: str) -> bool:
    """Whether the transformers' projections are matrices."""
    return len(_shape(shapes, f"{UNET}middle_block.1.proj_in.weight", where)) == 2


def autoencoder_config(shapes: Mapping[str, Tensor], where: str) -> AutoencoderConfig:
    """Config of the autoencoder from its weights."""
    widths, attending, blocks = [], [], 0
    while (name := f"{VAE}encoder.down.{len(widths)}.block.0.conv2.weight") in shapes:
        if f"{VAE}encoder.down.{len(widths)}.attn.0.norm.weight" in shapes:
            attending.append(len(widths))
        widths.append(shapes[name].shape[0])
    while f"{VAE}encoder.down.0.block.{blocks}.conv2.weight" in shapes:
        blocks += 1
    if not widths:
        raise ModelError(f"{where} lacks the weight {VAE}encoder.down.0.block.0.conv2.weight")
    return AutoencoderConfig(
        channels=widths[0],
        multiples=tuple(width // widths[0] for width in widths),
        blocks=blocks,
        latent_channels=_shape(shapes, f"{VAE}decoder.conv_in.weight", where)[1],
        attention_levels=tuple(attending),
        middle_attention=f"{VAE}encoder.mid.attn_1.norm.weight" in shapes,
        scale=SCALE,
    )


def text_config(shapes: Mapping[str, Tensor], version: int, where: str) -> TextConfig:
    """Config of the text tower from its weights; of version 2 without its last block."""
    if version == 1:
        start = f"{TEXT}transformer.text_model."
        if not any(name.startswith(start) for name in shapes):
            start = f"{TEXT}transformer."
        tokens, positions, block = (
            "embeddings.token_embedding.weight",
            "embeddings.position_embedding.weight",
            "encoder.layers.",
        )
    else:
        start, tokens, positions, block = (
            f"{TEXT}model.",
            "token_embedding.weight",
            "positional_embedding",
            "transformer.resblocks.",
        )
    vocabulary, width = _shape(shapes, start + tokens, where)
    layers = len(_numbers(shapes, start + block))
    return TextConfig(
        vocabulary=vocabulary,
        context=_shape(shapes, start + positions, where)[0],
        end=vocabulary - 1,
        width=width,
        layers=layers if version == 1 else layers - 1,
        heads=max(1, width // 64),
        activation="quick_gelu" if version == 1 else "gelu",
    )


def _numbers(names: Collection[str], prefix: str) -> set[str]:
    return {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}


def _shape(shapes: Mapping[str, Tensor], name: str, where: str) -> tuple[int, ...]:
    if name not in shapes:
        raise ModelError(f"{where} lacks the weight {name}")
    return tuple(shapes[name].shape)
