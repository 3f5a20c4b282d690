"""Start points and paths: pure noise, noised pictures, pictures inverted to their noise, and the arc between two."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import Denoiser, NoiseSource, Step, draw, noise_level, per_sample


def start(z: Float[Tensor, "b ..."], sigma_max: float | Tensor) -> Float[Tensor, "b ..."]:
    """The state of pure noise at the top of a grid: ``z * sqrt(1 + sigma_max²)``.

    DDPM starts from p(x_T) = N(0, I), which is this in the units of x0 + sigma eps.
    """
    return z * (1 + float(sigma_max) ** 2) ** 0.5


def start_noise(x: Float[Tensor, "b ..."], sigma_max: float | Tensor) -> Float[Tensor, "b ..."]:
    """The x_T of DDPM's units, with unit variance: the inverse of `start`."""
    return x / (1 + float(sigma_max) ** 2) ** 0.5


# SDEdit (arXiv 2108.01073), Algorithm 1, lines 1 to 3.
def noised(x0: Float[Tensor, "b ..."], sigma: float | Tensor, noise: NoiseSource) -> Float[Tensor, "b ..."]:
    """A draw of q(x | x0) at the noise level sigma."""
    return x0 + float(sigma) * draw(noise, x0)


def truncate(sigmas: Float[Tensor, " n"], strength: float) -> Float[Tensor, " m"]:
    """The last part of a grid, for starting from a noised picture: of n steps, about ``strength * n``, at least one.

    `strength` is in (0, 1]: 1 keeps the grid.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength lies in (0, 1], but is {strength}")
    steps = len(sigmas) - 1
    return sigmas[steps - max(1, round(strength * steps)) :]


# Shoemake 1985, "Animating rotation with quaternion curves"; unCLIP (arXiv 2204.06125), sections 3.2 and 3.3.
def slerp(
    a: Float[Tensor, "b ..."], b: Float[Tensor, "b ..."], theta: float | Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """Spherical interpolation of each sample as one vector, from `a` (theta 0) to `b` (theta 1).

    Lengths are kept apart from directions: the result's length goes linearly from that of `a` to that of `b`.
    Opposite vectors have no arc between them: ValueError.
    """
    t = per_sample(theta.to(a.device), a) if isinstance(theta, Tensor) else theta
    length_a, length_b = (per_sample(torch.linalg.vector_norm(v.flatten(1), dim=1), a) for v in (a, b))
    unit_a, unit_b = a / length_a.clamp(min=1e-12), b / length_b.clamp(min=1e-12)
    # The angle from chords: arccos of the cosine loses half of the digits for vectors that are nearly parallel.
    apart = per_sample(torch.linalg.vector_norm((unit_a - unit_b).flatten(1), dim=1), a)
    along = per_sample(torch.linalg.vector_norm((unit_a + unit_b).flatten(1), dim=1), a)
    if bool((along < 1e-4).any()):
        raise ValueError("opposite vectors have no shortest arc between them; go by way of a third")
    omega = 2 * torch.atan2(apart, along)
    # sin(t omega) / sin(omega), which is t for no angle at all; sinc(x) is sin(pi x) / (pi x).
    scale = torch.sinc(omega / torch.pi)
    weight_a = (1 - t) * torch.sinc((1 - t) * omega / torch.pi) / scale
    weight_b = t * torch.sinc(t * omega / torch.pi) / scale
    return (weight_a * unit_a + weight_b * unit_b) * torch.lerp(length_a, length_b, t)


# DDIM (arXiv 2010.02502), section 4.3, and Diffusion Models Beat GANs (arXiv 2105.05233), appendix F.
def invert(
    denoise: Denoiser, x0: Float[Tensor, "b ..."], sigmas: Float[Tensor, " n"], *, iterations: int = 1
) -> Iterator[Step]:
    """Walks a clean sample up a descending grid that ends in 0, to the x_T from which `ddim` makes it again.

    Each step of `ddim`, ``x_next = r x + (1 - r) D(x)`` with r = sigma_next / sigma, is solved for x by Newton's method
    with the slope that D has for unit Gaussian data, 1 / (1 + sigma²), started along the eps of the step below. One
    iteration is one call a step, the cost of plain DDIM inversion; more approach the exact inverse. Yields steps of
    index 0, 1, ... going up.
    """
    if iterations < 1:
        raise ValueError(f"inversion takes at least one iteration a step, not {iterations}")
    x, eps, estimate = x0, torch.zeros_like(x0), x0
    levels = sigmas.double().cpu().flip(0).tolist()
    for i, (below, sigma) in enumerate(pairwise(levels)):
        ratio = below / sigma
        slope = ratio + (1 - ratio) / (1 + sigma**2)
        base, x = x, x + (sigma - below) * eps
        for _ in range(iterations):
            estimate = denoise(x, noise_level(sigma, x)).x0
            x = x + (base - estimate - ratio * (x - estimate)) / slope
        eps = (x - estimate) / sigma
        yield Step(i, x, estimate)
