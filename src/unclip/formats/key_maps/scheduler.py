"""Noise processes from diffusers' scheduler configs."""

from collections.abc import Mapping
from typing import Any, Literal

from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats.key_maps.options import Options


def process_config(
    scheduler: Mapping[str, Any], where: str, *, clip_range: float | None = 1.0
) -> ProcessConfig:
    """Process of an `UnCLIPScheduler`, whose estimates must be clamped to `clip_range`; None accepts any range."""
    options = Options(scheduler, where)
    options.require(_class_name="UnCLIPScheduler")
    options.demand(beta_schedule="squaredcos_cap_v2", clip_sample=True)
    if clip_range is not None:
        options.equal("clip_sample_range", options.take("clip_sample_range", float, 1.0), clip_range)
    predictions: dict[str, Literal["eps", "x0"]] = {"epsilon": "eps", "sample": "x0"}
    prediction = options.take("prediction_type", str, "epsilon")
    variance = options.take("variance_type", str, "fixed_small_log")
    if prediction not in predictions or variance not in ("fixed_small_log", "learned_range"):
        raise ModelError(
            f"{where}: prediction_type {prediction!r} or variance_type {variance!r} is not known"
        )
    return ProcessConfig(
        parametrization=predictions[prediction],
        schedule="cosine",
        steps=options.take("num_train_timesteps", int, 1000),
        learned_variance=variance == "learned_range",
    )
