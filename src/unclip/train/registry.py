"""The stages that can be trained. A new stage is one module in `train/tasks/` and one line here. Imports nothing heavy.

The module of a stage has the class of its run config (a `TrainConfig`) and `build(config, device)`, which returns its
network, losses and data (`train.task.Built`). A recipe of a stage is a function of the stage's name in a module of
`recipes/`.
"""

import importlib
from types import ModuleType
from typing import Any, NamedTuple

from unclip.config import ConfigError


class Stage(NamedTuple):
    """Module and run config class of a stage."""

    module: str
    config: str
    part: str | None = None
    """Name of the part in model folders; None: that of the stage."""


#: Stage -> its code.
STAGES = {
    "clip": Stage("unclip.train.tasks.clip", "ClipTraining"),
    "prior": Stage("unclip.train.tasks.prior", "PriorTraining"),
    "decoder": Stage("unclip.train.tasks.decoder", "DecoderTraining"),
    "upsampler": Stage("unclip.train.tasks.upsampler", "UpsamplerTraining"),
    "upsampler_1024": Stage("unclip.train.tasks.upsampler", "UpsamplerTraining"),
    "prior_autoregressive": Stage("unclip.train.tasks.prior_autoregressive", "AutoregressivePriorTraining"),
    "autoencoder": Stage("unclip.train.tasks.autoencoder", "AutoencoderTraining"),
    "latent_decoder": Stage("unclip.train.tasks.decoder", "LatentDecoderTraining", "decoder"),
    "text_decoder": Stage("unclip.train.tasks.text_decoder", "TextDecoderTraining", "decoder"),
    "kandinsky_decoder": Stage("unclip.train.tasks.text_decoder", "KandinskyDecoderTraining", "decoder"),
}


def stage_module(stage: str) -> ModuleType:
    """Module of a stage. Raises `ConfigError` for an unknown one."""
    if stage not in STAGES:
        raise ConfigError(f"there is no stage {stage!r}; choose from {', '.join(STAGES)}")
    return importlib.import_module(STAGES[stage].module)


def part_of(stage: str) -> str:
    """Name of the part that a stage trains, in model folders."""
    return STAGES[stage].part or stage


def config_class(stage: str) -> type[Any]:
    """Run config class (a `TrainConfig`) of a stage. Raises `ConfigError` for an unknown one."""
    return getattr(stage_module(stage), STAGES[stage].config)
