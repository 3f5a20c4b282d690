"""Stable Diffusion's U-Net in diffusers' layout: `UNet2DConditionModel` with spatial transformers."""

from collections.abc import Mapping
from typing import Any

from unclip.checkpoints.keymap import SAME, Form, Row, Table, renamed, row, stacked, within
from unclip.config import shown
from unclip.errors import ModelError
from unclip.formats.key_maps.options import MOST, Options, Reference, only
from unclip.formats.key_maps.unet import SKELETON, attentions
from unclip.networks.latent_unet import LatentUnetConfig
from unclip.networks.text_decoder import TextDecoderConfig

# Ours is a matrix, theirs a 1x1 convolution; biases are the same.
POINTWISE = Form(
    lambda parts: parts[0].flatten(1) if parts[0].ndim == 4 else parts[0],
    lambda ours: [ours[:, :, None, None] if ours.ndim == 2 else ours],
)
BLOCK: list[Row] = [
    *renamed({"norm_1": "norm1", "norm_2": "norm2", "norm_3": "norm3"}),
    row(
        "attention.qkv.weight", "attn1.to_q.weight", "attn1.to_k.weight", "attn1.to_v.weight", form=stacked(3)
    ),
    *renamed({"attention.out": "attn1.to_out.0", "cross.out": "attn2.to_out.0"}),
    row("cross.query.weight", "attn2.to_q.weight"),
    row("cross.context_kv.weight", "attn2.to_k.weight", "attn2.to_v.weight", form=stacked(2)),
    *renamed({"mlp.into": "ff.net.0.proj", "mlp.out": "ff.net.2"}),
]
"""Rows within a transformer's block; Stable Diffusion's own files have the same names."""


def transformer_rows(*, linear: bool) -> list[Row]:
    """Rows of a spatial transformer, whose projections are matrices or 1x1 convolutions."""
    return [
        *renamed({"norm": "norm"}),
        *renamed({"into": "proj_in", "out": "proj_out"}, SAME if linear else POINTWISE),
        *within("blocks.{k}.", "transformer_blocks.{k}.", BLOCK),
    ]


def rows(*, linear: bool) -> list[Row]:
    """Rows of the whole net."""
    vector = renamed(
        {"vector.linear_1": "class_embedding.linear_1", "vector.linear_2": "class_embedding.linear_2"}
    )
    return [*SKELETON, *vector, *attentions(transformer_rows(linear=linear))]


def table(prefix: str, *, linear: bool) -> Table:
    """Table of the net as the part `net` of a decoder."""
    return Table(within("net.", prefix, rows(linear=linear)))


def decoder_table(config: TextDecoderConfig) -> Table:
    """Table of a text decoder's net; keys begin with "unet/". Matrices stand for the 1x1 convolutions of version 1."""
    return table("unet/", linear=True)


REFERENCE = Reference(
    name="UNet2DConditionModel",
    honoured=frozenset(
        {
            "sample_size",
            "in_channels",
            "out_channels",
            "down_block_types",
            "up_block_types",
            "block_out_channels",
        }
        | {"layers_per_block", "norm_num_groups", "attention_head_dim", "resnet_time_scale_shift"}
        | {"cross_attention_dim", "transformer_layers_per_block", "use_linear_projection", "upcast_attention"}
        | {"class_embed_type", "projection_class_embeddings_input_dim"}
    ),
    fixed={
        "act_fn": only("silu"),
        "center_input_sample": only(False),
        "flip_sin_to_cos": only(True),
        "freq_shift": only(0),
        "mid_block_scale_factor": only(1),
        "norm_eps": only(1e-5),
        "time_embedding_type": only("positional"),
        "time_embedding_dim": only(None),
        "downsample_padding": only(1),
        "num_class_embeds": only(None),
        "mid_block_type": only("UNetMidBlock2DCrossAttn"),
        "only_cross_attention": only(False),
        "mid_block_only_cross_attention": only(None, False),
        "dual_cross_attention": only(False),
        "cross_attention_norm": only(None),
        "addition_embed_type": only(None),
        "addition_time_embed_dim": only(None),
        "encoder_hid_dim": only(None),
        "encoder_hid_dim_type": only(None),
        "class_embeddings_concat": only(False),
        "num_attention_heads": only(None),
        "attention_type": only("default"),
        "resnet_skip_time_act": only(False),
        "resnet_out_scale_factor": only(1.0),
        "time_embedding_act_fn": only(None),
        "timestep_post_act": only(None),
        "time_cond_proj_dim": only(None),
        "conv_in_kernel": only(3),
        "conv_out_kernel": only(3),
        "reverse_transformer_layers_per_block": only(None),
    },
    inert=frozenset({"dropout", "addition_embed_type_num_heads"}),
)

_DOWN, _UP = ("CrossAttnDownBlock2D", "DownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
_DOWN_DEFAULT = [_DOWN[0], _DOWN[0], _DOWN[0], _DOWN[1]]
_UP_DEFAULT = [_UP[1], _UP[0], _UP[0], _UP[0]]


def read_config(data: Mapping[str, Any], where: str) -> LatentUnetConfig:
    """Config from `config.json`. Raises `ModelError` for an option that the network lacks, with its name."""
    options = Options(data, where)
    options.require(_class_name="UNet2DConditionModel")
    options.check(REFERENCE)
    widths = options.take("block_out_channels", list, [320, 640, 1280, 1280])
    if any(width % widths[0] for width in widths):
        raise ModelError(f"{where}: block_out_channels {widths} are not multiples of the first")
    levels = len(widths)
    down = options.take("down_block_types", list, _DOWN_DEFAULT)
    up = options.take("up_block_types", list, _UP_DEFAULT)[::-1]
    attending = tuple(level for level, kind in enumerate(down) if kind == _DOWN[0])
    mirrored = tuple(level for level, kind in enumerate(up) if kind == _UP[0])
    if not set(down) <= set(_DOWN) or not set(up) <= set(_UP) or not attending:
        odd = next((kind for kind in (*down, *up) if kind not in (*_DOWN, *_UP)), "DownBlock2D alone")
        raise ModelError(f"{where}: the block {odd!r} is not one of Stable Diffusion's U-Nets")
    if (len(down), len(up), attending) != (levels, levels, mirrored):
        raise ModelError(f"{where}: up_block_types do not mirror down_block_types of {levels} levels")
    return LatentUnetConfig(
        in_channels=options.take("in_channels", int, 4),
        out_channels=options.take("out_channels", int, 4),
        channels=widths[0],
        multiples=tuple(width // widths[0] for width in widths),
        blocks=_same(options, "layers_per_block", 2),
        attention_levels=attending,
        # A number of heads, by a name that diffusers gave it before it meant anything else.
        heads=_listed(options, "attention_head_dim", 8, levels),
        transformer_layers=_same(options, "transformer_layers_per_block", 1),
        context_width=_same(options, "cross_attention_dim", 1280),
        vector_width=_vector_width(options),
        scale_shift_norm=options.one_of(
            "resnet_time_scale_shift", {"default": False, "scale_shift": True}, "default"
        ),
        groups=options.take("norm_num_groups", int, 32),
        upcast_attention=options.take("upcast_attention", bool, False),
    )


def is_linear(data: Mapping[str, Any], where: str) -> bool:
    """Whether a file's projections are matrices (Stable Diffusion 2), or 1x1 convolutions (1)."""
    return Options(data, where).take("use_linear_projection", bool, False)


def _vector_width(options: Options) -> int | None:
    kind = options.data.get("class_embed_type")
    if kind is None:
        return None
    if kind != "projection":
        raise ModelError(
            f"{options.where}: class_embed_type is {shown(kind)}; it is only supported as None or 'projection'"
        )
    return options.take("projection_class_embeddings_input_dim", int)


def _same(options: Options, name: str, default: int) -> int:
    """An option that is one number, or a list that repeats one. Raises `ModelError` for different numbers."""
    value = options.data.get(name)
    if isinstance(value, list):
        if len(set(map(str, value))) != 1:
            raise ModelError(
                f"{options.where}: {name} is {shown(value)}; it is only supported as one number for all levels"
            )
        options = Options({name: value[0]}, options.where)
    return options.take(name, int, default)


def _listed(options: Options, name: str, default: int, levels: int) -> tuple[int, ...]:
    value = options.data.get(name, default)
    listed = value if isinstance(value, list) else [value] * levels
    if len(listed) != levels or not all(type(one) is int and 0 < one <= MOST for one in listed):
        raise ModelError(
            f"{options.where}: {name} is {shown(value)}; expected a number, or one for each of {levels} levels"
        )
    return tuple(listed)
