"""Noise processes from diffusers' scheduler configs."""

from collections.abc import Mapping
from typing import Any, Literal

from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats.key_maps.options import Options, Reference, only

SCHEDULER = Reference(
    name="UnCLIPScheduler",
    honoured=frozenset({"num_train_timesteps", "variance_type", "clip_sample_range", "prediction_type"}),
    fixed={"clip_sample": only(True), "beta_schedule": only("squaredcos_cap_v2")},
)


def process_config(
    scheduler: Mapping[str, Any], where: str, *, clip_range: float | None = 1.0
) -> ProcessConfig:
    """Process of an `UnCLIPScheduler`, whose estimates must be clamped to `clip_range`; None accepts any range."""
    options = Options(scheduler, where)
    options.require(_class_name="UnCLIPScheduler")
    options.check(SCHEDULER)
    if clip_range is not None:
        limit = options.take("clip_sample_range", float, 1.0)
        options.equal("clip_sample_range", limit, clip_range, "the range of a picture's values")
    predictions: dict[str, Literal["eps", "x0"]] = {"epsilon": "eps", "sample": "x0"}
    prediction = options.take("prediction_type", str, "epsilon")
    variance = options.take("variance_type", str, "fixed_small_log")
    for name, value, known in (
        ("prediction_type", prediction, tuple(predictions)),
        ("variance_type", variance, ("fixed_small_log", "learned_range")),
    ):
        if value not in known:
            raise ModelError(f"{where}: {name} is {value!r}, not one of {', '.join(known)}")
    return ProcessConfig(
        parametrization=predictions[prediction],
        schedule="cosine",
        steps=options.take("num_train_timesteps", int, 1000),
        learned_variance=variance == "learned_range",
    )
