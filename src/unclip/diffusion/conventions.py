"""Which noise levels the public pipelines visit, as diffusers' schedulers choose them for each sampler.

Times, the last level, the label of a level between two times, and the scale of the first state differ from sampler to
sampler there; pictures only agree where all four do.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion import grids
from unclip.diffusion.noise import NoiseTable

PublicSpacing = Literal["leading", "trailing", "linspace", "karras"]
Labelling = Literal["log", "linear", "whole"]
"""Time of a noise level between two of the table: interpolated in its logarithm, in itself, or rounded."""

_ON_TIMES = ("ddim", "ddpm", "plms")
_MULTISTEP = ("dpmpp_2m", "dpmpp_2m_sde")


class Visits(NamedTuple):
    """Noise levels to visit, and what goes with them."""

    sigmas: Float[Tensor, " levels"]
    """Descending; the last is the level of the result, 0 or the table's first."""
    labelling: Labelling = "log"
    unit_start: bool = True
    """Whether sampling starts from noise times sqrt(1 + sigma²), as DDPM does, or times sigma."""


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """How a public pipeline spaces its steps. `visits` says for which sampler which field matters."""

    spacing: Literal["leading", "trailing", "linspace"] | None = None
    """None is the default of each sampler's scheduler."""
    offset: int = 0
    """Added to the times of "leading"."""
    to_zero: bool = False
    """Whether DDIM and PLMS end without noise (set_alpha_to_one), or at the table's first level."""
    karras: bool = False
    """Whether samplers that need no whole times take Karras' levels between the first and the last."""

    def visits(
        self, table: NoiseTable, sampler: str, steps: int, spacing: PublicSpacing | None = None
    ) -> Visits:
        """Levels of `steps` steps of a sampler; `spacing` takes the place of the config's.

        Raises ValueError for a spacing that the sampler cannot use, and for more steps than it has times.
        """
        karras = self.karras if spacing is None else spacing == "karras"
        even = self.spacing if spacing in (None, "karras") else spacing
        if sampler in _ON_TIMES:
            if spacing == "karras":
                raise ValueError(f"{sampler} visits whole times: choose another spacing than 'karras'")
            return Visits(self._ended(table, _times(table, steps, even or "leading", self.offset), sampler))
        if sampler in _MULTISTEP:
            if karras:
                levels = _karras(float(table.sigmas[0]), float(table.sigmas[-1]), steps)
                return Visits(_to_zero(levels), "whole")
            if even == "trailing":
                times = _times(table, steps, "trailing", 0)
            else:
                # One time more, of which the last is left out.
                times = _times(table, steps + 1, even or "linspace", 0)[:-1]
                times = times + (self.offset if even == "leading" else 0)
                times = times if even == "leading" else times.round()
            return Visits(_to_zero(table.sigmas[times.long()]))
        even = even or "linspace"
        times = _times(table, steps, even, self.offset)
        levels = _between(table, times)
        if karras:
            levels = _karras(float(levels[-1]), float(levels[0]), steps)
        return Visits(_to_zero(levels), "log" if karras else "linear", unit_start=even == "leading")

    def _ended(self, table: NoiseTable, times: Tensor, sampler: str) -> Tensor:
        levels = table.sigmas[times.round().long()]
        if sampler == "ddpm" or self.to_zero:
            return _to_zero(levels)
        # A step from the table's first level to itself, which an offset of 0 ends with, changes nothing.
        return torch.cat([levels, table.sigmas[:1]]) if levels[-1] > table.sigmas[0] else levels


def _to_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


def _times(table: NoiseTable, steps: int, spacing: str, offset: int) -> Float[Tensor, " n"]:
    """Descending times, whole but for "linspace"."""
    count = len(table)
    if not 1 <= steps <= count:
        raise ValueError(f"cannot take {steps} sampling steps; choose a number from 1 to {count}")
    if spacing == "linspace":
        return torch.linspace(0, count - 1, steps, dtype=torch.float64).flip(0)
    if spacing == "trailing":
        return (count - torch.arange(steps, dtype=torch.float64) * (count / steps)).round() - 1
    times = torch.arange(steps, dtype=torch.float64).flip(0) * (count // steps) + offset
    if int(times[0]) >= count:
        raise ValueError(
            f"{steps} steps at an offset of {offset} leave the table of {count} times: take fewer steps"
        )
    return times


def _between(table: NoiseTable, times: Tensor) -> Tensor:
    below = times.floor().long().clamp(max=len(table) - 2)
    return torch.lerp(table.sigmas[below], table.sigmas[below + 1], times - below)


def _karras(first: float, last: float, steps: int) -> Tensor:
    return grids.karras(first, last, steps)[:-1]


def label_of(table: NoiseTable, labelling: Labelling, sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The time of noise levels, in the way that a sampler's pipeline labels them."""
    if labelling == "log":
        return table.t_of(sigma)
    if labelling == "whole":
        return table.t_of(sigma).round()
    levels = table.sigmas.to(sigma)
    sigma = sigma.clamp(levels[0], levels[-1])
    below = (torch.searchsorted(levels, sigma, right=True) - 1).clamp(0, len(levels) - 2)
    return below + (sigma - levels[below]) / (levels[below + 1] - levels[below])
