"""What every part of the core talks about: a denoiser, its answer, a source of noise, a sampler's step."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Denoised:
    """What a denoiser thinks of a noisy state.

    `x0` is the estimate of the clean sample, E[x0 | x]. `var_frac`, of a model that learned its variance
    (Improved DDPM, arXiv 2102.09672, equation 15), says where the logarithm of the reverse variance lies between
    that of the posterior (0) and that of the forward step (1); it is not clamped.
    """

    x0: Float[Tensor, "b ..."]
    var_frac: Float[Tensor, "b ..."] | None = None


@runtime_checkable
class Denoiser(Protocol):
    """A function from a noisy state and its noise level (one per sample) to the clean estimate."""

    def __call__(self, x: Float[Tensor, "b ..."], sigma: Float[Tensor, " b"]) -> Denoised: ...


@runtime_checkable
class NoiseSource(Protocol):
    """One stream of randomness per sample, so that a sample does not depend on its batch."""

    def normal(self, *shape: int) -> Tensor:
        """Standard normals of shape (b, *shape)."""
        ...


class Step(NamedTuple):
    """One step of a sampler: its index, the state after it, and the clean estimate made in it."""

    i: int
    x: Tensor
    x0: Tensor


def per_sample(values: Float[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Float[Tensor, "..."]:
    """One number per sample, shaped to multiply `like`, in its dtype and on its device.

    Equal numbers on the CPU become a single one that stays there: kernels of other devices take it as an argument.
    """
    if (one := _common(values, like.device)) is not None:
        return one.to(like.dtype)
    return values.to(like).reshape(-1, *(1,) * (like.ndim - 1))


def scalar_like(value: Tensor, like: Tensor) -> Tensor:
    """`value` in the dtype of `like`, to multiply it; on its device too, unless it is a single number."""
    return value.to(like.dtype) if value.ndim == 0 else value.to(like)


def on_device(values: Float[Tensor, " b"], device: torch.device) -> Float[Tensor, " b"]:
    """Numbers of a schedule on a device; equal ones are written there, so that nothing waits for a copy."""
    if (one := _common(values, device)) is not None:
        return torch.full(values.shape, one.item(), dtype=values.dtype, device=device)
    return values.to(device)


def _common(values: Float[Tensor, " b"], device: torch.device) -> Tensor | None:
    """The number that all values are, if they are on the CPU and `device` is another."""
    if values.device == device or values.device.type != "cpu" or not len(values):
        return None
    return values[0] if bool((values == values[0]).all()) else None


def draw(noise: NoiseSource | None, like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Standard normal noise of the shape, dtype and device of `like`; ValueError where there is no source."""
    if noise is None:
        raise ValueError(
            "this sampler draws random numbers as it goes: give it noise=..., or turn eta or churn to 0"
        )
    return noise.normal(*like.shape[1:]).to(like)


def noise_level(sigma: float | Tensor, like: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """One noise level for the whole batch, as samplers give it to denoisers: float64 on the CPU, whatever the device.

    Float64, because the label of a table is found from sigma, and a network's fast sinusoids see an error of
    1e-5 in it. On the CPU, because to look at a number on another device is to wait for all that it has to do.
    """
    return torch.full((like.shape[0],), float(sigma), dtype=torch.float64)
