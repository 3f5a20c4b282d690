"""Kandinsky's decoders in diffusers' layout: a `UNet2DConditionModel` with projections of z_i, and of captions in 2.1."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unclip.checkpoints.keymap import Row, Table, renamed, within
from unclip.errors import ModelError
from unclip.formats.key_maps import unet as unet_map
from unclip.formats.key_maps.kandinsky_scheduler import Schedule
from unclip.formats.key_maps.options import Options, only
from unclip.networks.kandinsky import KandinskyConfig, KandinskyTextConfig

# Tokens that diffusers' classes make of z_i; no config names them.
TOKENS_21, TOKENS_22 = 10, 32

_PROJECTIONS_22: list[Row] = renamed(
    {
        "image_vector": "add_embedding.image_proj",
        "vector_norm": "add_embedding.image_norm",
        "image_tokens": "encoder_hid_proj.image_embeds",
        "tokens_norm": "encoder_hid_proj.norm",
    }
)
_PROJECTIONS_21: list[Row] = renamed(
    {
        "image_vector": "add_embedding.image_proj",
        "vector_norm": "add_embedding.text_norm",
        "text_vector": "add_embedding.text_proj",
        "image_tokens": "encoder_hid_proj.image_embeds",
        "text_tokens": "encoder_hid_proj.text_proj",
    }
)


def table(config: KandinskyConfig) -> Table:
    """Table of the decoder; keys begin with "unet/"."""
    projections = _PROJECTIONS_22 if config.text is None else _PROJECTIONS_21
    return Table([*within("net.", "unet/", unet_map.ROWS), *within("", "unet/", projections)])


UNET = replace(
    unet_map.CONDITIONAL,
    honoured=unet_map.CONDITIONAL.honoured
    | {"encoder_hid_dim", "encoder_hid_dim_type", "addition_embed_type"},
    fixed={
        name: rule
        for name, rule in unet_map.CONDITIONAL.fixed.items()
        if name not in ("encoder_hid_dim", "encoder_hid_dim_type", "addition_embed_type")
    }
    | {"class_embed_type": only(None)},
)
_KINDS = {("image_proj", "image"): "2.2", ("text_image_proj", "text_image"): "2.1"}


def decoder_config(
    data: Mapping[str, Any],
    schedule: Schedule,
    *,
    channels: int,
    factor: int,
    context: int,
    where: str,
) -> KandinskyConfig:
    """Config of a decoder over latents of `channels` at 1/`factor` of a picture's size.

    `context` is the length of captions in version 2.1. Raises `ModelError` for another architecture, such as the decoder
    with depth hints.
    """
    net = unet_map.read_config(data, where, UNET)
    options = Options(data, where)
    kinds = options.take("encoder_hid_dim_type", str, ""), options.take("addition_embed_type", str, "")
    if kinds[1] == "image_hint":
        raise ModelError(
            f"{where}: addition_embed_type is 'image_hint', a decoder that reads depth: take the one without ControlNet"
        )
    if kinds not in _KINDS:
        raise ModelError(
            f"{where}: encoder_hid_dim_type and addition_embed_type are {kinds[0]!r} and {kinds[1]!r}, which is neither "
            "Kandinsky 2.2 ('image_proj', 'image') nor 2.1 ('text_image_proj', 'text_image')"
        )
    hidden, width = options.take("encoder_hid_dim", int), net.context_width
    assert width is not None
    text = KandinskyTextConfig(width=hidden, embedding=width, context=context)
    inputs = {channels: False, 2 * channels + 1: True}
    if net.in_channels not in inputs:
        raise ModelError(
            f"{where}: in_channels is {net.in_channels}; over latents of {channels} channels it is {channels}, or "
            f"{2 * channels + 1} to inpaint"
        )
    try:
        return KandinskyConfig(
            net=net,
            channels=channels,
            size=factor * options.take("sample_size", int, 64),
            embedding=hidden if _KINDS[kinds] == "2.2" else width,
            image_tokens=TOKENS_22 if _KINDS[kinds] == "2.2" else TOKENS_21,
            text=None if _KINDS[kinds] == "2.2" else text,
            inpainting=inputs[net.in_channels],
            process=schedule.process,
            grid=schedule.grid,
            clip=schedule.clip,
            threshold=schedule.threshold,
        )
    except ValueError as error:
        raise ModelError(f"{where}: {error}") from error
