"""Fine-tuning of a model that is there, whatever its sizes: `unclip train decoder --init FOLDER --data PICTURES`.

The config of the network, the CLIP and the autoencoder are the model's own. The share of dropped conditions is kept as in
training from the start, so that guidance goes on working.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from unclip.config import ConfigError
from unclip.diffusion.losses import LossConfig, UniformTime
from unclip.networks.adapter import AdapterConfig
from unclip.train.begin import open_parts
from unclip.train.config import DataConfig, TrainConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.registry import STAGES, part_of
from unclip.train.tasks.autoencoder import AutoencoderTraining
from unclip.train.tasks.decoder import DecoderTraining, LatentDecoderTraining
from unclip.train.tasks.prior import PriorTraining
from unclip.train.tasks.text_decoder import KandinskyDecoderTraining, TextDecoderTraining

NAME = "finetune"
_SIMPLE = LossConfig(density=UniformTime(), weight="target")

#: Kind of a network, and whether it draws latents -> the run config of its stage.
_CONFIGS: dict[tuple[str, bool], Callable[..., TrainConfig]] = {
    ("decoder", False): DecoderTraining,
    ("decoder", True): LatentDecoderTraining,
    ("text_decoder", True): TextDecoderTraining,
    ("decoder_kandinsky", True): KandinskyDecoderTraining,
    ("prior_diffusion", False): PriorTraining,
}


def config(stage: str, init: str, *, rank: int | None = None) -> TrainConfig:
    """Run config of a stage that begins with the model `init`; with `rank`, an adapter of that rank is trained.

    `decoder` stands for whatever stage the model's decoder has. Raises `ConfigError` for a model without that part, and
    for one that is not trained by this package.
    """
    parts = open_parts(init)
    name = part_of(stage)
    if name not in parts:
        raise ConfigError(f"{init} holds {', '.join(parts)} but no {name}: name a model with one")
    model = parts[name].config
    if model.kind in ("autoencoder", "movq"):
        return replace(
            AutoencoderTraining(recipe=NAME, model=model, init=init, data=DataConfig(size=256)), clip=init
        )
    latent = name == "decoder" and "autoencoder" in parts
    make = _CONFIGS.get((model.kind, latent))
    if make is None:
        raise ConfigError(f"the {name} of {init} is a {model.kind!r}, which is not trained here")
    settings: dict[str, Any] = {
        "recipe": NAME,
        "model": model,
        "init": init,
        "clip": init,
        "data": DataConfig(size=getattr(model, "size", 64)),
        "loss": _SIMPLE,
        "optimizer": OptimizerConfig(
            learning_rate=1e-5 if rank is None else 1e-4, betas=(0.9, 0.999), weight_decay=0.0, decay=0.0
        ),
        "samples": 10_000,
        "batch": 16,
        "micro_batch": 1,
        "ema_decay": 0.999,
        "adapter": None if rank is None else AdapterConfig(rank=rank),
    }
    made = make(**settings, **({"autoencoder": init} if latent else {}))
    if stage not in ("decoder", made.stage):
        suited = ", ".join(one for one in STAGES if one == made.stage)
        raise ConfigError(f"the {name} of {init} is trained by the stage {suited}, not {stage}")
    return made
