"""Latent diffusion's autoencoder in diffusers' layout: `AutoencoderKL`."""

from collections.abc import Mapping
from typing import Any

from unclip.checkpoints.keymap import Row, Table, renamed, row, stacked, within
from unclip.errors import ModelError
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.networks.autoencoder import AutoencoderConfig

RESBLOCK: list[Row] = renamed(
    {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "skip": "conv_shortcut"}
)
ATTENTION: list[Row] = [
    *renamed({"norm": "group_norm", "out": "to_out.0"}),
    row("qkv.{p}", "to_q.{p}", "to_k.{p}", "to_v.{p}", form=stacked(3)),
]
_COMMON: list[Row] = [
    *renamed({"entrance": "conv_in", "exit_norm": "conv_norm_out", "exit": "conv_out"}),
    *within("middle.resblock1.", "mid_block.resnets.0.", RESBLOCK),
    *within("middle.attention.", "mid_block.attentions.0.", ATTENTION),
    *within("middle.resblock2.", "mid_block.resnets.1.", RESBLOCK),
]


def _level(ours: str, theirs: str, resample: str) -> list[Row]:
    return [
        *within(f"{ours}.{{n}}.resblocks.{{m}}.", f"{theirs}.{{n}}.resnets.{{m}}.", RESBLOCK),
        *within(f"{ours}.{{n}}.attentions.{{m}}.", f"{theirs}.{{n}}.attentions.{{m}}.", ATTENTION),
        *renamed({f"{ours}.{{n}}.resample.convolution": f"{theirs}.{{n}}.{resample}.0.conv"}),
    ]


ROWS: list[Row] = [
    *within("encoder.", "encoder.", [*_COMMON, *_level("down", "down_blocks", "downsamplers")]),
    *within("decoder.", "decoder.", [*_COMMON, *_level("up", "up_blocks", "upsamplers")]),
    *renamed({"quant": "quant_conv", "post_quant": "post_quant_conv"}),
]
# Files before diffusers 0.17 name the attention's layers so.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": r"to_out.0"}
SPELLINGS = tuple(
    (rf"(.*\.attentions\.\d+\.){old}\.(weight|bias)", rf"\g<1>{new}.\2") for old, new in _OLD.items()
)


def table(prefix: str) -> Table:
    """Table of the autoencoder."""
    return Table(within("", prefix, ROWS), spellings=SPELLINGS)


REFERENCE = Reference(
    name="AutoencoderKL",
    honoured=frozenset(
        {"in_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block"}
        | {"latent_channels", "norm_num_groups", "scaling_factor", "use_quant_conv", "use_post_quant_conv"}
        | {"mid_block_add_attention", "out_channels"}
    ),
    fixed={
        "act_fn": only("silu"),
        # Stable Diffusion's pipelines do not read them.
        "shift_factor": only(None),
        "latents_mean": only(None),
        "latents_std": only(None),
    },
    # The size that it was trained at, and a note for pipelines in half precision: numbers are watched here.
    inert=frozenset({"sample_size", "force_upcast"}),
)

_DOWN, _UP = ("AttnDownEncoderBlock2D", "DownEncoderBlock2D"), ("AttnUpDecoderBlock2D", "UpDecoderBlock2D")
SCALE = 0.18215
"""diffusers' default, which old files leave out."""


def read_config(data: Mapping[str, Any], where: str) -> AutoencoderConfig:
    """Config from `config.json`. Raises `ModelError` for an option that the network lacks, with its name."""
    options = Options(data, where)
    options.require(_class_name="AutoencoderKL")
    options.check(REFERENCE)
    widths = options.take("block_out_channels", list, [64])
    if any(width % widths[0] for width in widths):
        raise ModelError(f"{where}: block_out_channels {widths} are not multiples of the first")
    down = options.take("down_block_types", list, ["DownEncoderBlock2D"])
    up = options.take("up_block_types", list, ["UpDecoderBlock2D"])[::-1]
    if odd := [kind for kind in (*down, *up) if kind not in (*_DOWN, *_UP)]:
        raise ModelError(f"{where}: the block {odd[0]!r} is not one of Stable Diffusion's autoencoder")
    attending = tuple(level for level, kind in enumerate(down) if kind == _DOWN[0])
    mirrored = tuple(level for level, kind in enumerate(up) if kind == _UP[0])
    if (len(down), len(up), attending) != (len(widths), len(widths), mirrored):
        raise ModelError(f"{where}: up_block_types do not mirror down_block_types of {len(widths)} levels")
    channels, quant = options.take("in_channels", int, 3), options.take("use_quant_conv", bool, True)
    options.equal("out_channels", options.take("out_channels", int, 3), channels, "in_channels")
    options.equal(
        "use_post_quant_conv", options.take("use_post_quant_conv", bool, True), quant, "use_quant_conv"
    )
    if channels != 3:
        raise ModelError(f"{where}: in_channels is {channels}; pictures have 3")
    return AutoencoderConfig(
        channels=widths[0],
        multiples=tuple(width // widths[0] for width in widths),
        blocks=options.take("layers_per_block", int, 1),
        latent_channels=options.take("latent_channels", int, 4),
        attention_levels=attending,
        middle_attention=options.take("mid_block_add_attention", bool, True),
        groups=options.take("norm_num_groups", int, 32),
        quant=quant,
        scale=options.take("scaling_factor", float, SCALE),
    )
