"""Parametrisations: what a network is asked to predict, and how that makes it a denoiser.

A network F becomes a denoiser by three coefficients and a label, the frame of EDM (arXiv 2206.00364, equation 7):

    D(x, sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x, label(sigma))

The rows of `ROWS` are the coefficients; the label is chosen by the noise schedule, independently of the row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion import grids
from unclip.diffusion.denoiser import Denoised, Denoiser, on_device, per_sample
from unclip.diffusion.noise import NoiseTable

ParametrizationName = Literal["eps", "v", "x0", "flow", "edm", "karras"]
"""Names of rows; "karras" is the name that "edm" had in version 0.1, and is read as that."""
ScheduleName = Literal["cosine", "linear", "scaled_linear", "flow", "edm"]
Spacing = Literal["respaced", "leading", "trailing", "karras", "flow"]


class Coefficients(NamedTuple):
    """``D = skip * x + out * F(into * x)``, one of each per noise level."""

    skip: Float[Tensor, " b"]
    out: Float[Tensor, " b"]
    into: Float[Tensor, " b"]


# DDPM (arXiv 2006.11239), equation 11: F is the noise, x0 = x - sigma eps.
def _eps(sigma: Tensor, sigma_data: float) -> Coefficients:
    return Coefficients(torch.ones_like(sigma), -sigma, (1 + sigma**2).rsqrt())


# Progressive distillation (arXiv 2202.00512), section 4: F is v = sqrt(abar) eps - sqrt(1 - abar) x0.
def _v(sigma: Tensor, sigma_data: float) -> Coefficients:
    root = (1 + sigma**2).rsqrt()
    return Coefficients(root**2, -sigma * root, root)


# unCLIP (arXiv 2204.06125), equation 2: F is the clean sample itself.
def _x0(sigma: Tensor, sigma_data: float) -> Coefficients:
    return Coefficients(torch.zeros_like(sigma), torch.ones_like(sigma), (1 + sigma**2).rsqrt())


# Rectified flow (arXiv 2209.03003), equation 1: F is the velocity eps - x0 of (1 - t) x0 + t eps, t = sigma / (1 + sigma).
def _flow(sigma: Tensor, sigma_data: float) -> Coefficients:
    return Coefficients(1 / (1 + sigma), -sigma / (1 + sigma), 1 / (1 + sigma))


# EDM (arXiv 2206.00364), table 1: input and target of F have unit variance for data of variance sigma_data².
def _edm(sigma: Tensor, sigma_data: float) -> Coefficients:
    root = (sigma**2 + sigma_data**2).rsqrt()
    return Coefficients((sigma_data * root) ** 2, sigma * sigma_data * root, root)


ROWS: dict[str, Callable[[Tensor, float], Coefficients]] = {
    "eps": _eps,
    "v": _v,
    "x0": _x0,
    "flow": _flow,
    "edm": _edm,
}


def flow_time(sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """``t = sigma / (1 + sigma)`` in [0, 1): the time of rectified flow, and the label of the flow schedule."""
    return sigma / (1 + sigma)


def edm_label(sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """``ln(sigma) / 4``: EDM's c_noise."""
    return sigma.log() / 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Parametrization:
    """One row of coefficients and the label that goes with the noise schedule."""

    name: ParametrizationName
    label: Callable[[Tensor], Tensor]
    label_scale: float = 1.0
    """Brings labels to the range of DDPM's timesteps, which every network is given: 1000 for continuous schedules."""
    sigma_data: float = 0.5
    learned_variance: bool = False

    def coefficients(self, sigma: Float[Tensor, " b"]) -> Coefficients:
        """(c_skip, c_out, c_in) at each noise level, in sigma's dtype."""
        return ROWS[self.name](sigma, self.sigma_data)

    def target(
        self, x0: Float[Tensor, "b ..."], eps: Float[Tensor, "b ..."], sigma: Float[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        """What F should say of ``x0 + sigma * eps``: the row solved for F, ``(x0 - c_skip x) / c_out``.

        The two terms are written out so that nothing large cancels at small or large sigma.
        """
        c = self.coefficients(sigma)
        return per_sample((1 - c.skip) / c.out, x0) * x0 - per_sample(c.skip * sigma / c.out, x0) * eps


@dataclass(frozen=True, kw_only=True, eq=False)
class Process:
    """A noise process as a model was trained on it: its row, its table where time is discrete, its range."""

    parametrization: Parametrization
    table: NoiseTable | None
    sigma_min: float
    sigma_max: float

    def grid(self, n: int, spacing: Spacing | None = None) -> Float[Tensor, " levels"]:
        """`n` noise levels to visit, then 0; by default respaced on a table, even in t for flow, Karras for EDM.

        Raises ValueError when the spacing needs a table and the process is continuous.
        """
        if spacing is None:
            spacing = (
                "respaced" if self.table else "karras" if self.parametrization.label is edm_label else "flow"
            )
        if spacing == "karras":
            return grids.karras(self.sigma_min, self.sigma_max, n)
        if spacing == "flow":
            return grids.uniform_flow(self.sigma_max, n)
        if self.table is None:
            raise ValueError(f"{spacing!r} spacing needs a discrete schedule; use 'karras' or 'flow' here")
        return {"respaced": grids.respaced, "leading": grids.leading, "trailing": grids.trailing}[spacing](
            self.table, n
        )


@dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """What to predict and on which noise schedule.

    The label that a network is given follows the schedule, in timestep units: the table's time 0 .. steps-1 for cosine,
    linear and scaled_linear; 1000 times the flow time sigma / (1 + sigma) for flow; 1000 ln(sigma) / 4 for edm. `sigma_min` and `sigma_max`
    bound the continuous schedules; `steps` is the length of the discrete ones.
    """

    parametrization: ParametrizationName
    schedule: ScheduleName = "cosine"
    steps: int = 1000
    sigma_data: float = 0.5
    learned_variance: bool = False
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    betas: tuple[float, float] | None = None
    """First and last beta of "linear" and "scaled_linear"; None is DDPM's and Stable Diffusion's."""

    def __post_init__(self) -> None:
        """Give the row of EDM the name that it has now."""
        if self.parametrization == "karras":
            object.__setattr__(self, "parametrization", "edm")

    @property
    def label_scale(self) -> float:
        """Factor from labels to timestep units: 1 for discrete schedules, 1000 for flow time and EDM's c_noise."""
        return 1000.0 if self.schedule in ("flow", "edm") else 1.0

    def build(self) -> Process:
        """The process. Raises ValueError for a learned variance on a schedule that has no steps."""
        if self.schedule in ("flow", "edm"):
            if self.learned_variance:
                raise ValueError(
                    f"a learned variance needs a discrete schedule, not {self.schedule!r}; use 'cosine'"
                )
            table, label = None, flow_time if self.schedule == "flow" else edm_label
            sigma_min, sigma_max = self.sigma_min, self.sigma_max
        else:
            table = self._table()
            label = table.t_of
            sigma_min, sigma_max = table.sigmas[0].item(), table.sigmas[-1].item()
        row = Parametrization(
            name=self.parametrization,
            label=label,
            label_scale=self.label_scale,
            sigma_data=self.sigma_data,
            learned_variance=self.learned_variance,
        )
        return Process(parametrization=row, table=table, sigma_min=sigma_min, sigma_max=sigma_max)

    def _table(self) -> NoiseTable:
        if self.betas is None:
            return getattr(NoiseTable, self.schedule)(self.steps)
        if self.schedule not in ("linear", "scaled_linear"):
            raise ValueError(f"betas belong to a linear schedule, not to {self.schedule!r}: leave them out")
        return NoiseTable.between(*self.betas, self.steps, scaled=self.schedule == "scaled_linear")


class Preconditioned:
    """A network and a process: together a denoiser, once a condition is bound.

    `network(scaled_x, label, condition)` is any function or module; its answer has the shape of x, with twice the
    channels on axis 1 when the variance is learned. Whatever precision it works in, the coefficients are applied in
    the state's own (float32): an eps head rounded to bfloat16 is wrong by far more than its rounding at large sigma.
    """

    def __init__(self, network: Callable[..., Tensor], process: Process) -> None:
        self.network = network
        self.process = process
        self.parametrization = process.parametrization

    def raw(
        self, x: Float[Tensor, "b ..."], sigma: Float[Tensor, " b"], condition: Any = None
    ) -> Float[Tensor, "b ..."]:
        """F(c_in x, label), in the state's precision; the label is in timestep units."""
        into = self.parametrization.coefficients(sigma).into
        label = self.parametrization.label(sigma).to(torch.float32) * self.parametrization.label_scale
        return self.network(per_sample(into, x) * x, on_device(label, x.device), condition).to(x.dtype)

    def denoised(
        self, raw: Float[Tensor, "b ..."], x: Float[Tensor, "b ..."], sigma: Float[Tensor, " b"]
    ) -> Denoised:
        """The clean estimate that an answer of the network stands for."""
        var_frac = None
        if self.parametrization.learned_variance:
            raw, v = raw.chunk(2, dim=1)
            var_frac = (v + 1) / 2
        c = self.parametrization.coefficients(sigma)
        return Denoised(per_sample(c.skip, x) * x + per_sample(c.out, x) * raw, var_frac)

    def __call__(
        self, x: Float[Tensor, "b ..."], sigma: Float[Tensor, " b"], condition: Any = None
    ) -> Denoised:
        return self.denoised(self.raw(x, sigma, condition), x, sigma)

    def bind(self, condition: Any) -> Denoiser:
        """The denoiser of one condition."""

        def denoise(x: Tensor, sigma: Tensor) -> Denoised:
            return self(x, sigma, condition)

        return denoise
