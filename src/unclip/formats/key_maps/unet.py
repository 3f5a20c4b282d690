"""U-Nets in diffusers' layout, as Karlo's: `UNet2DConditionModel` with added keys and values, `UNet2DModel` without."""

from collections.abc import Mapping, Sequence
from typing import Any

from unclip.checkpoints.keymap import Row, Table, renamed, row, stacked, within
from unclip.errors import ModelError
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.networks.unet import UnetConfig

RESBLOCK = renamed(
    {"norm1": "norm1", "conv1": "conv1", "embedding": "time_emb_proj", "norm2": "norm2", "conv2": "conv2"}
    | {"skip": "conv_shortcut"}
)
_ATTENTION = [
    *renamed({"norm": "group_norm", "out": "to_out.0"}),
    row("qkv.{p}", "to_q.{p}", "to_k.{p}", "to_v.{p}", form=stacked(3)),
    row("context_kv.{p}", "add_k_proj.{p}", "add_v_proj.{p}", form=stacked(2)),
]

SKELETON: list[Row] = [
    *renamed(
        {
            "entrance": "conv_in",
            "label.linear_1": "time_embedding.linear_1",
            "label.linear_2": "time_embedding.linear_2",
            "exit_norm": "conv_norm_out",
            "exit": "conv_out",
        }
    ),
    *within("down.{n}.resblocks.{m}.", "down_blocks.{n}.resnets.{m}.", RESBLOCK),
    *within("down.{n}.resample.", "down_blocks.{n}.downsamplers.0.", RESBLOCK),
    *renamed({"down.{n}.resample.convolution": "down_blocks.{n}.downsamplers.0.conv"}),
    *within("middle.resblock1.", "mid_block.resnets.0.", RESBLOCK),
    *within("middle.resblock2.", "mid_block.resnets.1.", RESBLOCK),
    *within("up.{n}.resblocks.{m}.", "up_blocks.{n}.resnets.{m}.", RESBLOCK),
    *within("up.{n}.resample.", "up_blocks.{n}.upsamplers.0.", RESBLOCK),
    *renamed({"up.{n}.resample.convolution": "up_blocks.{n}.upsamplers.0.conv"}),
]
"""Rows of all but the attentions."""


def attentions(rows: Sequence[Row]) -> list[Row]:
    """Rows of the attentions of all levels, and of the middle."""
    return [
        *within("down.{n}.attentions.{m}.", "down_blocks.{n}.attentions.{m}.", rows),
        *within("middle.attention.", "mid_block.attentions.0.", rows),
        *within("up.{n}.attentions.{m}.", "up_blocks.{n}.attentions.{m}.", rows),
    ]


ROWS: list[Row] = [*SKELETON, *attentions(_ATTENTION)]
TABLE = Table(ROWS)

_HONOURED = frozenset(
    {"sample_size", "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels"}
    | {"layers_per_block", "norm_num_groups", "attention_head_dim", "resnet_time_scale_shift"}
)
_FIXED = {
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
}
CONDITIONAL = Reference(
    name="UNet2DConditionModel",
    honoured=_HONOURED | {"cross_attention_dim"},
    fixed=_FIXED
    | {
        "class_embed_type": only("identity", default=None),
        "mid_block_type": only("UNetMidBlock2DSimpleCrossAttn", default="UNetMidBlock2DCrossAttn"),
        "only_cross_attention": only(False),
        "mid_block_only_cross_attention": only(None, False),
        "cross_attention_norm": only(None),
        "addition_embed_type": only(None),
        "addition_time_embed_dim": only(None),
        "encoder_hid_dim": only(None),
        "encoder_hid_dim_type": only(None),
        "projection_class_embeddings_input_dim": only(None),
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
    # The last five are for attention blocks other than Karlo's.
    inert=frozenset({"dropout", "addition_embed_type_num_heads", "transformer_layers_per_block"})
    | {"dual_cross_attention", "use_linear_projection", "upcast_attention"},
)
PLAIN = Reference(
    name="UNet2DModel",
    honoured=_HONOURED,
    fixed=_FIXED
    | {
        "mid_block_type": only("UNetMidBlock2D"),
        "add_attention": only(False, default=True),
        "class_embed_type": only(None),
        "attn_norm_num_groups": only(None),
    },
    # How other blocks than Karlo's change size, and the length of a table of labels.
    inert=frozenset({"dropout", "downsample_type", "upsample_type", "num_train_timesteps"}),
)

_PLAIN = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
_ATTENDING = ("SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D")


def read_config(data: Mapping[str, Any], where: str, reference: Reference | None = None) -> UnetConfig:
    """Config from `config.json` of a diffusers U-Net. Raises `ModelError` for an architecture other than GLIDE's.

    `reference` lists its options, where a family has more than Karlo.
    """
    options = Options(data, where)
    conditional = _class(options) == "UNet2DConditionModel"
    options.check(reference or (CONDITIONAL if conditional else PLAIN))
    widths = options.take("block_out_channels", list)
    if any(width % widths[0] for width in widths):
        raise ModelError(f"{where}: block_out_channels {widths} are not multiples of the first")
    attending = _attention_levels(options, conditional)
    scale_shift = options.take("resnet_time_scale_shift", str, "default")
    if scale_shift not in ("default", "scale_shift"):
        raise ModelError(f"{where}: resnet_time_scale_shift {scale_shift!r} is not known")
    return UnetConfig(
        in_channels=options.take("in_channels", int, 3),
        out_channels=options.take("out_channels", int, 3),
        channels=widths[0],
        multiples=tuple(width // widths[0] for width in widths),
        blocks=options.take("layers_per_block", int, 2),
        attention_levels=attending,
        head_channels=options.take("attention_head_dim", int, 8),
        context_width=options.take("cross_attention_dim", int, 1280) if conditional else None,
        vector_width=4 * widths[0] if conditional else None,
        scale_shift_norm=scale_shift == "scale_shift",
        groups=options.take("norm_num_groups", int, 32),
    )


def _class(options: Options) -> str:
    name = options.data.get("_class_name")
    if name not in ("UNet2DConditionModel", "UNet2DModel"):
        raise ModelError(f"{options.where}: {name!r} is not one of UNet2DConditionModel, UNet2DModel")
    return name


def _attention_levels(options: Options, conditional: bool) -> tuple[int, ...]:
    """Levels with attention, from the names of the blocks, which must mirror each other on the way up."""
    down = options.take("down_block_types", list)
    up = options.take("up_block_types", list)[::-1]
    for kind in [*down, *up]:
        if kind not in (*_PLAIN, *(_ATTENDING if conditional else ())):
            raise ModelError(f"{options.where}: the block {kind!r} is not one of Karlo's U-Nets")
    levels = tuple(level for level, kind in enumerate(down) if kind == _ATTENDING[0])
    if len(up) != len(down) or levels != tuple(n for n, kind in enumerate(up) if kind == _ATTENDING[1]):
        raise ModelError(f"{options.where}: up_block_types do not mirror down_block_types")
    return levels
