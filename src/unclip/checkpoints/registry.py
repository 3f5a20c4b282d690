"""The kinds of parts that a model folder may hold, each with its config and its module, imported when needed."""

import importlib
from typing import Any, NamedTuple

from torch import nn

from unclip.checkpoints.manifest import ModelError
from unclip.config import ConfigError, from_dict


class Kind(NamedTuple):
    """Where a kind of part lives."""

    module: str
    config: str
    network: str


KINDS = {
    "clip": Kind("unclip.networks.clip", "ClipConfig", "Clip"),
    "prior_diffusion": Kind("unclip.networks.prior_diffusion", "DiffusionPriorConfig", "DiffusionPrior"),
    "prior_laion": Kind("unclip.networks.prior_laion", "LaionPriorConfig", "LaionPrior"),
    "prior_autoregressive": Kind(
        "unclip.networks.prior_autoregressive", "AutoregressivePriorConfig", "AutoregressivePrior"
    ),
    "decoder": Kind("unclip.networks.decoder", "DecoderConfig", "Decoder"),
    "upsampler": Kind("unclip.networks.upsampler", "UpsamplerConfig", "Upsampler"),
}


#: Kind -> fields that its config had in version 0.1, all of them settings of training: read and ignored.
RETIRED: dict[str, frozenset[str]] = {
    "prior_diffusion": frozenset({"dropout_text"}),
    "prior_autoregressive": frozenset({"dropout_text", "reconstruction_error"}),
    "decoder": frozenset({"dropout_image", "dropout_caption", "dropout_hint", "uncertainty"}),
    "upsampler": frozenset(
        {"degradation", "bsr_strength", "blur_kernel", "blur_sigma", "blur_probability", "noise_level"}
        | {"seam_level", "seam_patch", "crop_fraction"}
    ),
}


def classes(kind: str) -> tuple[type[Any], type[nn.Module]]:
    """The config and the network class of a kind. Raises `ModelError` for an unknown one."""
    if kind not in KINDS:
        raise ModelError(f"unknown kind of part {kind!r}: this version knows {', '.join(KINDS)}")
    home = KINDS[kind]
    module = importlib.import_module(home.module)
    return getattr(module, home.config), getattr(module, home.network)


def kind_of(network: nn.Module) -> str:
    """The kind of a network. Raises `ValueError` for a class that is not registered."""
    where = type(network).__module__, type(network).__name__
    for kind, home in KINDS.items():
        if where == (home.module, home.network):
            return kind
    raise ValueError(f"{type(network).__name__} is no registered part: choose from {', '.join(KINDS)}")


def read_config(kind: str, data: dict[str, Any], where: str) -> Any:
    """The frozen config of a part from its JSON. Raises `ModelError` naming the key that does not fit."""
    retired = RETIRED.get(kind, frozenset())
    try:
        return from_dict(
            classes(kind)[0], {name: value for name, value in data.items() if name not in retired}
        )
    except ConfigError as error:
        raise ModelError(f"{where}: {error}") from error
