"""Noise processes, grids and samplers from the scheduler configs of latent models' pipelines."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from unclip.config import shown
from unclip.diffusion.conventions import GridConfig
from unclip.diffusion.parametrization import ParametrizationName, ProcessConfig
from unclip.errors import ModelError
from unclip.formats.key_maps.options import Only, Options, Reference, only

_HONOURED = frozenset(
    {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "timestep_spacing"}
    | {"steps_offset"}
)
_BETAS = {"trained_betas": only(None)}
_TERMINAL = {"rescale_betas_zero_snr": only(False)}
_SIGMAS = {"use_exponential_sigmas": only(False), "use_beta_sigmas": only(False)}
_CLIPPED = frozenset({"dynamic_thresholding_ratio", "sample_max_value"})


def _reference(
    name: str, honoured: set[str], fixed: Mapping[str, Only], inert: frozenset[str] = frozenset()
) -> Reference:
    return Reference(name=name, honoured=_HONOURED | honoured, fixed={**_BETAS, **fixed}, inert=inert)


DDIM = _reference(
    "DDIMScheduler",
    {"set_alpha_to_one", "clip_sample", "clip_sample_range"},
    {**_TERMINAL, "thresholding": only(False)},
    _CLIPPED,
)
DDPM = _reference(
    "DDPMScheduler",
    {"clip_sample", "clip_sample_range"},
    {**_TERMINAL, "thresholding": only(False), "variance_type": only("fixed_small", "fixed_small_log")},
    _CLIPPED,
)
PNDM = _reference(
    "PNDMScheduler",
    set(),
    # The Runge-Kutta start that it would have otherwise is another sampler.
    {"skip_prk_steps": only(True, default=False), "set_alpha_to_one": only(False)},
)
EULER = _reference(
    "EulerDiscreteScheduler",
    {"use_karras_sigmas"},
    {
        **_TERMINAL,
        **_SIGMAS,
        "interpolation_type": only("linear"),
        "sigma_min": only(None),
        "sigma_max": only(None),
        "timestep_type": only("discrete"),
        "final_sigmas_type": only("zero"),
    },
)
EULER_ANCESTRAL = _reference("EulerAncestralDiscreteScheduler", set(), _TERMINAL)
HEUN = _reference(
    "HeunDiscreteScheduler",
    {"use_karras_sigmas"},
    {**_SIGMAS, "clip_sample": only(False)},
    frozenset({"clip_sample_range"}),
)
DPM = _reference(
    "DPMSolverMultistepScheduler",
    {"use_karras_sigmas", "algorithm_type"},
    {
        **_TERMINAL,
        **_SIGMAS,
        "solver_order": only(2),
        "solver_type": only("midpoint"),
        "thresholding": only(False),
        "lower_order_final": only(True),
        "euler_at_final": only(False),
        "use_lu_lambdas": only(False),
        "use_flow_sigmas": only(False),
        "use_dynamic_shifting": only(False),
        "final_sigmas_type": only("zero"),
        "lambda_min_clipped": only(-math.inf),
        "variance_type": only(None),
    },
    _CLIPPED | {"flow_shift", "time_shift_type"},
)
REFERENCES = {one.name: one for one in (DDIM, DDPM, PNDM, EULER, EULER_ANCESTRAL, HEUN, DPM)}
_SAMPLERS = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "PNDMScheduler": "plms",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "HeunDiscreteScheduler": "heun",
}
_CLIPS = {"DDIMScheduler": True, "DDPMScheduler": True}
_ALIGNED_TO_ONE = {"DDIMScheduler": True}


class LatentSchedule(NamedTuple):
    """A process, how its steps are spaced, the sampler, and the range that clean estimates are clamped to."""

    process: ProcessConfig
    grid: GridConfig
    sampler: str
    clip_range: float | None


def read_schedule(data: Mapping[str, Any], where: str, *, patched: bool = False) -> LatentSchedule:
    """Schedule from `scheduler_config.json`. Raises `ModelError` for an option that the samplers lack, with its name.

    Stable Diffusion's pipelines (`patched`) set steps_offset to 1 and clip_sample to False whatever the file says.
    """
    options = Options(data, where)
    name = options.take("_class_name", str, "")
    if name not in REFERENCES:
        raise ModelError(f"{where}: the scheduler {shown(name)} is not one of {', '.join(REFERENCES)}")
    options.check(REFERENCES[name])
    spacings: dict[str, Literal["leading", "trailing", "linspace"]]
    spacings = {"leading": "leading", "trailing": "trailing", "linspace": "linspace"}
    spacing = None
    if data.get("timestep_spacing") is not None:
        spacing = options.one_of("timestep_spacing", spacings, "leading")
    clip = None
    if not patched and name == "DDIMScheduler" and options.take("clip_sample", bool, True):
        # It clamps the estimate alone there and keeps the noise that it implied before, which samplers here do not.
        raise ModelError(
            f"{where}: clip_sample is True with DDIMScheduler, which is not supported: only False is"
        )
    if not patched and options.take("clip_sample", bool, _CLIPS.get(name, False)):
        clip = options.take("clip_sample_range", float, 1.0)
    algorithms = {"dpmsolver++": "dpmpp_2m", "sde-dpmsolver++": "dpmpp_2m_sde"}
    sampler = _SAMPLERS.get(name) or options.one_of("algorithm_type", algorithms, "dpmsolver++")
    return LatentSchedule(
        process=_process(options, name),
        grid=GridConfig(
            spacing=spacing,
            offset=1 if patched else options.take("steps_offset", int, 0),
            to_zero=options.take("set_alpha_to_one", bool, _ALIGNED_TO_ONE.get(name, False)),
            karras=options.take("use_karras_sigmas", bool, False),
        ),
        sampler=sampler,
        clip_range=clip,
    )


def _process(options: Options, name: str) -> ProcessConfig:
    predictions: dict[str, ParametrizationName] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
    row = options.one_of("prediction_type", predictions, "epsilon")
    steps = options.take("num_train_timesteps", int, 1000)
    kinds: dict[str, Literal["linear", "scaled_linear", "cosine"]]
    kinds = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
    schedule = options.one_of("beta_schedule", kinds, "linear")
    first, last = (0.00085, 0.012) if name == "HeunDiscreteScheduler" else (0.0001, 0.02)
    betas = options.take("beta_start", float, first), options.take("beta_end", float, last)
    usual = {"linear": (0.0001, 0.02), "scaled_linear": (0.00085, 0.012)}.get(schedule)
    if schedule == "cosine" or (betas == usual and steps == 1000):
        betas = None
    elif not 0 < betas[0] < betas[1] < 1:
        raise ModelError(
            f"{options.where}: beta_start and beta_end are {betas[0]} and {betas[1]}; they rise within (0, 1)"
        )
    return ProcessConfig(parametrization=row, schedule=schedule, steps=steps, betas=betas)
