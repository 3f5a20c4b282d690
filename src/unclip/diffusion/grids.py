"""Which noise levels to visit: grids are 1-D, float64, descending, and end in 0."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unclip.diffusion.noise import NoiseTable


def _at(table: NoiseTable, t: Int[Tensor, " n"]) -> Float[Tensor, " levels"]:
    """The grid that visits the descending times `t` of a table."""
    return torch.cat([table.sigmas[t], table.sigmas.new_zeros(1)])


def _check(n: int, limit: int | None = None) -> None:
    if n < 1 or (limit is not None and n > limit):
        raise ValueError(
            f"cannot take {n} sampling steps; choose a number from 1 to {limit or 'as many as you like'}"
        )


# Improved DDPM (arXiv 2102.09672), section 4: evenly spaced over 1..T, rounded to whole times.
def respaced(table: NoiseTable, steps: int | Sequence[int]) -> Float[Tensor, " levels"]:
    """`steps` times, evenly spaced from the last of the table to the first, both included.

    A sequence, such as [10, 10, 15], cuts the table in equal sections and takes that many times of each, the
    section of least noise first.
    """
    counts = [steps] if isinstance(steps, int) else list(steps)
    size, extra = divmod(len(table), len(counts))
    times, start = [], 0
    for section, count in enumerate(counts):
        length = size + (section < extra)
        _check(count, length)
        # One step for a whole table starts from its noisiest time, as sampling has to.
        if count == 1 and len(counts) == 1:
            times.append(torch.tensor([length - 1]))
        else:
            stride = (length - 1) / max(count - 1, 1)
            times.append(start + (torch.arange(count, dtype=torch.float64) * stride).round().long())
        start += length
    return _at(table, torch.cat(times).flip(0))


def leading(table: NoiseTable, steps: int, offset: int = 0) -> Float[Tensor, " levels"]:
    """Every (T // steps)-th time from `offset` up: DDIM's spacing, Stable Diffusion's with an offset of 1."""
    _check(steps, len(table))
    t = torch.arange(steps).flip(0) * (len(table) // steps) + offset
    if offset < 0 or int(t[0]) >= len(table):
        raise ValueError(f"an offset of {offset} leaves the table of {len(table)} times; use 0 or 1")
    return _at(table, t)


# Common Diffusion Noise Schedules and Sample Steps are Flawed (arXiv 2305.08891), table 2.
def trailing(table: NoiseTable, steps: int) -> Float[Tensor, " levels"]:
    """Every (T / steps)-th time from the last of the table down."""
    _check(steps, len(table))
    t = len(table) - torch.arange(steps, dtype=torch.float64) * (len(table) / steps)
    return _at(table, t.round().long() - 1)


# EDM (arXiv 2206.00364), equation 5: even in sigma ** (1 / rho).
def karras(sigma_min: float, sigma_max: float, steps: int, rho: float = 7.0) -> Float[Tensor, " levels"]:
    """`steps` noise levels from `sigma_max` to `sigma_min`, denser where there is less noise."""
    _check(steps)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(ends[0] + ramp * (ends[1] - ends[0])) ** rho, ramp.new_zeros(1)])


# Rectified flow (arXiv 2209.03003): even in t = sigma / (1 + sigma). The shift is equation 23 of arXiv 2403.03206.
def uniform_flow(sigma_max: float, steps: int, shift: float = 1.0) -> Float[Tensor, " levels"]:
    """`steps` noise levels, evenly spaced in flow time; a `shift` above 1 spends more of them in the noise."""
    _check(steps)
    last = sigma_max / shift / (1 + sigma_max / shift)
    t = last * torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return shift * t / (1 - t)
