"""Kandinsky's autoencoder in diffusers' layout: a `VQModel` with spatial norms."""

from collections.abc import Mapping
from typing import Any

from unclip.checkpoints.keymap import Row, Table, renamed, row, stacked, within
from unclip.errors import ModelError
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.networks.movq import GROUPS, MovqConfig


def _norm(ours: str, theirs: str, *, spatial: bool) -> list[Row]:
    if not spatial:
        return renamed({ours: theirs})
    pairs = {"norm": "norm_layer", "scale": "conv_y", "shift": "conv_b"}
    return renamed({f"{ours}.{mine}": f"{theirs}.{other}" for mine, other in pairs.items()})


def _resblock(*, spatial: bool) -> list[Row]:
    return [
        *_norm("norm1", "norm1", spatial=spatial),
        *_norm("norm2", "norm2", spatial=spatial),
        *renamed({"conv1": "conv1", "conv2": "conv2", "skip": "conv_shortcut"}),
    ]


def _attention(*, spatial: bool) -> list[Row]:
    return [
        *_norm("norm", "spatial_norm" if spatial else "group_norm", spatial=spatial),
        row("qkv.{p}", "to_q.{p}", "to_k.{p}", "to_v.{p}", form=stacked(3)),
        *renamed({"out": "to_out.0"}),
    ]


def _half(ours: str, *, spatial: bool) -> list[Row]:
    """Rows of the encoder (its levels are called "down") or of the decoder ("up")."""
    levels, resample = f"{ours}_blocks.{{n}}.", f"{ours}samplers.0.conv"
    block, attention = _resblock(spatial=spatial), _attention(spatial=spatial)
    return [
        *renamed({"entrance": "conv_in", "exit": "conv_out"}),
        *_norm("exit_norm", "conv_norm_out", spatial=spatial),
        *within(f"{ours}.{{n}}.resblocks.{{m}}.", f"{levels}resnets.{{m}}.", block),
        *within(f"{ours}.{{n}}.attentions.{{m}}.", f"{levels}attentions.{{m}}.", attention),
        *renamed({f"{ours}.{{n}}.resample.convolution": levels + resample}),
        *within("middle.resblock1.", "mid_block.resnets.0.", block),
        *within("middle.attention.", "mid_block.attentions.0.", attention),
        *within("middle.resblock2.", "mid_block.resnets.1.", block),
    ]


ROWS: list[Row] = [
    *within("encoder.", "encoder.", _half("down", spatial=False)),
    *within("decoder.", "decoder.", _half("up", spatial=True)),
    *renamed({"to_latents": "quant_conv", "from_latents": "post_quant_conv"}),
    row("codes.weight", "quantize.embedding.weight"),
]
TABLE = Table(ROWS)

MOVQ = Reference(
    name="VQModel",
    honoured=frozenset(
        {"down_block_types", "up_block_types", "block_out_channels", "layers_per_block", "latent_channels"}
        | {"num_vq_embeddings", "vq_embed_dim"}
    ),
    fixed={
        "in_channels": only(3),
        "out_channels": only(3),
        "act_fn": only("silu"),
        "norm_num_groups": only(GROUPS),
        "norm_type": only("spatial", default="group"),
        "mid_block_add_attention": only(True),
        "lookup_from_codebook": only(False),
    },
    # Kandinsky's pipelines do not multiply by the factor. The rest is read by training and by other pipelines.
    inert=frozenset({"scaling_factor", "force_upcast", "sample_size"}),
)
_DOWN = ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")
_UP = ("UpDecoderBlock2D", "AttnUpDecoderBlock2D")


def read_config(data: Mapping[str, Any], where: str) -> MovqConfig:
    """Config of Kandinsky's autoencoder. Raises `ModelError` for another architecture."""
    options = Options(data, where)
    options.require(_class_name="VQModel")
    options.check(MOVQ)
    widths = options.take("block_out_channels", list)
    channels = options.take("latent_channels", int, 3)
    given = options.take("vq_embed_dim", int, channels)
    options.equal("vq_embed_dim", given, channels, "latent_channels")
    down = options.take("down_block_types", list)
    up = options.take("up_block_types", list)[::-1]
    for kinds, known in ((down, _DOWN), (up, _UP)):
        if len(kinds) != len(widths) or any(kind not in known for kind in kinds):
            raise ModelError(f"{where}: the blocks {kinds} are not one of {', '.join(known)} for each width")
    levels = tuple(level for level, kind in enumerate(down) if kind == _DOWN[1])
    if levels != tuple(level for level, kind in enumerate(up) if kind == _UP[1]):
        raise ModelError(f"{where}: up_block_types do not mirror down_block_types")
    try:
        return MovqConfig(
            latent_channels=channels,
            widths=tuple(widths),
            blocks=options.take("layers_per_block", int, 1),
            attention_levels=levels,
            codes=options.take("num_vq_embeddings", int, 256),
        )
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where}: {error}") from error
