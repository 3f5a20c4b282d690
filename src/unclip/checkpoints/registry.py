"""Kinds of networks in model folders: config, module and role of each, imported when needed."""

import importlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from torch import nn

from unclip.config import ConfigError, from_dict
from unclip.errors import ModelError

Role = Literal["clip", "text", "prior", "decoder", "autoencoder", "upsampler"]
"""What a part does in a model. "text" is the text tower of a latent decoder, beside the CLIP whose embeddings it reads."""


class Kind(NamedTuple):
    """Where a kind of network is defined, and what it does in a model."""

    module: str
    config: str
    network: str
    role: Role


KINDS = {
    "clip": Kind("unclip.networks.clip", "ClipConfig", "Clip", "clip"),
    "prior_diffusion": Kind(
        "unclip.networks.prior_diffusion", "DiffusionPriorConfig", "DiffusionPrior", "prior"
    ),
    "prior_laion": Kind("unclip.networks.prior_laion", "LaionPriorConfig", "LaionPrior", "prior"),
    "prior_autoregressive": Kind(
        "unclip.networks.prior_autoregressive", "AutoregressivePriorConfig", "AutoregressivePrior", "prior"
    ),
    "decoder": Kind("unclip.networks.decoder", "DecoderConfig", "Decoder", "decoder"),
    "decoder_kandinsky": Kind("unclip.networks.kandinsky", "KandinskyConfig", "KandinskyDecoder", "decoder"),
    "decoder_glide": Kind("unclip.networks.glide", "GlideConfig", "Glide", "decoder"),
    "upsampler_glide": Kind("unclip.networks.glide", "GlideUpsamplerConfig", "GlideUpsampler", "upsampler"),
    "movq": Kind("unclip.networks.movq", "MovqConfig", "Movq", "autoencoder"),
    "multilingual": Kind("unclip.networks.multilingual", "MultilingualConfig", "Multilingual", "text"),
    "text_encoder": Kind("unclip.networks.text_encoder", "TextEncoderConfig", "TextEncoder", "text"),
    "text_decoder": Kind("unclip.networks.text_decoder", "TextDecoderConfig", "TextDecoder", "decoder"),
    "autoencoder": Kind("unclip.networks.autoencoder", "AutoencoderConfig", "Autoencoder", "autoencoder"),
    "upsampler": Kind("unclip.networks.upsampler", "UpsamplerConfig", "Upsampler", "upsampler"),
}

RETIRED: dict[str, frozenset[str]] = {
    "prior_diffusion": frozenset({"dropout_text"}),
    "prior_autoregressive": frozenset({"dropout_text", "reconstruction_error"}),
    "decoder": frozenset(
        {"dropout_image", "dropout_caption", "dropout_hint", "uncertainty", "net.label_scale"}
    ),
    "upsampler": frozenset(
        {
            "net.label_scale",
            "degradation",
            "bsr_strength",
            "blur_kernel",
            "blur_sigma",
            "blur_probability",
            "noise_level",
        }
        | {"seam_level", "seam_patch", "crop_fraction"}
    ),
}
"""For each kind, config fields of earlier versions that are ignored when read; a dot leads into a nested config.

They stay in the `model.json` of existing folders, and so in their digest.
"""


RETIRED_WEIGHTS: dict[str, str] = {
    # Karlo's decoder, as version 0.1 converted it, held a copy of CLIP's text tower; a decoder that learned the
    # uncertainty of its loss held that network, which only training needs.
    "decoder": r"caption\.tower\..*|uncertainty\..*",
}
"""For each kind, a pattern of weights of earlier versions that are ignored when read."""


def role_of(kind: str) -> Role:
    """Role of a kind. Raises `ModelError` for an unknown one."""
    return _kind(kind).role


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise ModelError(f"unknown kind of part {kind!r}: this version knows {', '.join(KINDS)}")
    return KINDS[kind]


def classes(kind: str) -> tuple[type[Any], type[nn.Module]]:
    """Config and network class of a kind. Raises `ModelError` for an unknown one."""
    home = _kind(kind)
    module = importlib.import_module(home.module)
    return getattr(module, home.config), getattr(module, home.network)


def kind_of(network: nn.Module) -> str:
    """Kind of a network. Raises `ValueError` for a class that is not registered."""
    where = type(network).__module__, type(network).__name__
    for kind, home in KINDS.items():
        if where == (home.module, home.network):
            return kind
    raise ValueError(f"{type(network).__name__} is not a registered part: choose from {', '.join(KINDS)}")


def read_config(kind: str, data: Mapping[str, Any], where: str) -> Any:
    """Frozen config of a part from its JSON, without retired fields. Raises `ModelError` naming a key that does not fit."""
    try:
        config = from_dict(classes(kind)[0], without(data, RETIRED.get(kind, frozenset())))
    except ConfigError as error:
        raise ModelError(f"{where}: {error}") from error
    _check_label_scale(config, data, where)
    return config


def _check_label_scale(config: Any, data: Mapping[str, Any], where: str) -> None:
    """Raise `ModelError` for a network of version 0.1 whose labels were scaled otherwise than its process asks for."""
    net, process = data.get("net"), getattr(config, "process", None)
    scale = net.get("label_scale") if isinstance(net, Mapping) else None
    if scale is not None and process is not None and scale != process.label_scale:
        raise ModelError(
            f"{where}: it was trained on labels times {scale:g}, its schedule {process.schedule!r} gives them times "
            f"{process.label_scale:g}: only version 0.1 runs it"
        )


def without(data: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    """Copy of JSON data without some fields; a dot leads into a nested object."""
    kept = {}
    for name, value in data.items():
        if name in fields:
            continue
        inner = frozenset(field.removeprefix(f"{name}.") for field in fields if field.startswith(f"{name}."))
        kept[name] = without(value, inner) if inner and isinstance(value, Mapping) else value
    return kept
