"""Schedulers of Kandinsky's decoders in diffusers' layout: DDPM (2.2) and DDIM (2.1), over a table linear in beta."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from unclip.diffusion.conventions import GridConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats.key_maps.options import Options, Reference, only

_HONOURED = frozenset({"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type"})
_HONOURED |= {"clip_sample", "clip_sample_range", "timestep_spacing", "steps_offset"}
_FIXED = {"trained_betas": only(None), "rescale_betas_zero_snr": only(False)}
_THRESHOLD = frozenset({"dynamic_thresholding_ratio", "sample_max_value"})
DDPM = Reference(
    name="DDPMScheduler",
    honoured=_HONOURED | _THRESHOLD | {"variance_type", "thresholding"},
    fixed=_FIXED,
)
# diffusers' DDIM changes the estimate alone there and keeps the noise that it implied before, which samplers here do not.
DDIM = Reference(
    name="DDIMScheduler",
    honoured=(_HONOURED | {"set_alpha_to_one"}) - {"clip_sample"},
    fixed=_FIXED | {"thresholding": only(False), "clip_sample": only(False, default=True)},
    inert=_THRESHOLD,
)
_KNOWN = {"DDPMScheduler": DDPM, "DDIMScheduler": DDIM}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What a scheduler's file says."""

    process: ProcessConfig
    grid: GridConfig
    clip: float | None
    """Range that clean estimates of the latents are clamped to; None leaves them."""
    threshold: tuple[float, float] | None = None
    """Quantile and largest range of dynamic thresholding, in place of `clip`."""
    sampler: Literal["ddpm", "ddim"]


def read_schedule(data: Mapping[str, Any], where: str) -> Schedule:
    """Schedule of a decoder. Raises `ModelError` for another scheduler, and for options that samplers here lack."""
    options = Options(data, where)
    kind = options.take("_class_name", str, "")
    if kind not in _KNOWN:
        raise ModelError(f"{where}: {kind!r} is not one of {', '.join(_KNOWN)}")
    options.check(_KNOWN[kind])
    variance = options.take("variance_type", str, "fixed_small")
    schedules: dict[str, Literal["linear", "scaled_linear"]] = {
        "linear": "linear",
        "scaled_linear": "scaled_linear",
    }
    predictions: dict[str, Literal["eps", "v"]] = {"epsilon": "eps", "v_prediction": "v"}
    spacings: dict[str, Literal["leading", "trailing", "linspace"]] = {
        "leading": "leading",
        "trailing": "trailing",
        "linspace": "linspace",
    }
    schedule = _one_of(options, "beta_schedule", "linear", schedules)
    _one_of(
        options,
        "variance_type",
        "fixed_small",
        dict.fromkeys(("fixed_small", "fixed_small_log", "learned_range")),
    )
    betas = options.take("beta_start", float, 0.0001), options.take("beta_end", float, 0.02)
    if not 0 < betas[0] < betas[1] < 1:
        raise ModelError(
            f"{where}: beta_start and beta_end are {betas[0]} and {betas[1]}; they rise within (0, 1)"
        )
    process = ProcessConfig(
        parametrization=_one_of(options, "prediction_type", "epsilon", predictions),
        schedule=schedule,
        steps=options.take("num_train_timesteps", int, 1000),
        betas=betas,
        learned_variance=variance == "learned_range",
    )
    clip = options.take("clip_sample_range", float, 1.0) if options.take("clip_sample", bool, True) else None
    threshold = None
    if options.take("thresholding", bool, False):
        clip, threshold = None, _threshold(options)
    return Schedule(
        process=process,
        grid=GridConfig(
            spacing=_one_of(options, "timestep_spacing", "leading", spacings),
            offset=options.take("steps_offset", int, 0),
            to_zero=options.take("set_alpha_to_one", bool, True),
        ),
        clip=clip,
        threshold=threshold,
        sampler="ddpm" if kind == "DDPMScheduler" else "ddim",
    )


def _threshold(options: Options) -> tuple[float, float]:
    quantile = options.take("dynamic_thresholding_ratio", float, 0.995)
    largest = options.take("sample_max_value", float, 1.0)
    if not 0 < quantile <= 1 or largest < 1:
        raise ModelError(
            f"{options.where}: dynamic_thresholding_ratio is {quantile} and sample_max_value {largest}; give a share of 1 and "
            "at least 1"
        )
    return quantile, largest


def _one_of(options: Options, name: str, default: str, known: Mapping[str, Any]) -> Any:
    value = options.take(name, str, default)
    if value not in known:
        raise ModelError(f"{options.where}: {name} is {value!r}, not one of {', '.join(known)}")
    return known[value]
