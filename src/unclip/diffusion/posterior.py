"""The reverse step of DDPM in sigma space: q(x_{t-1} | x_t, x_0), its variances, and how far a model is from it."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import Denoised, scalar_like

VarianceName = Literal["fixed_small", "fixed_large", "learned"]
Variance = VarianceName | Callable[[Tensor, Tensor], Tensor]
"""The variance of the reverse step: by name, or as a function of (sigma, sigma_next), such as `AnalyticVariance`."""


# DDPM (arXiv 2006.11239), equations 6 and 7, with x = x0 + sigma eps in place of sqrt(abar) x0 + sqrt(1 - abar) eps.
def posterior_mean(
    x: Float[Tensor, "b ..."], x0: Float[Tensor, "b ..."], sigma: Tensor, sigma_next: Tensor
) -> Float[Tensor, "b ..."]:
    """The mean of q(x_next | x, x0), for noise levels that broadcast against x."""
    return x0 + scalar_like((sigma_next / sigma).square(), x) * (x - x0)


def variance_bounds(sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """The variances of the reverse step: the posterior's (beta tilde, "fixed small") and beta ("fixed large").

    In units of the state x = x0 + sigma eps, so both are (1 + sigma_next²) times those of the DDPM paper:
    the optimal ones for data that is a point and data that is a unit Gaussian.
    """
    gap = sigma.square() - sigma_next.square()
    small = sigma_next.square() * gap / sigma.square()
    large = gap * (1 + sigma_next.square()) / (1 + sigma.square())
    return small, large


def variance_floor(smallest: float, second: float) -> float:
    """What stands in for the posterior's variance in the step to sigma = 0, where that is nothing.

    As in Improved DDPM's code, it is the posterior variance of the step before, in the clean sample's units.
    """
    s0, s1 = smallest**2, second**2
    return s0 * (s1 - s0) / s1 / (1 + s0)


# Improved DDPM (arXiv 2102.09672), equation 15.
def interpolate_log(var_frac: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """The logarithm of the learned variance, ``frac log(large) + (1 - frac) log(small)``."""
    low, high = scalar_like(small.log(), var_frac), scalar_like(large.log(), var_frac)
    return low + var_frac * (high - low)


def reverse_log_variance(
    variance: Variance, denoised: Denoised, sigma: Tensor, sigma_next: Tensor, floor: float = 0.0
) -> Tensor:
    """log of the variance of p(x_next | x), which broadcasts against x; `floor` bounds the posterior's from below.

    Raises ValueError when the learned variance is asked of a model that has none.
    """
    if callable(variance):
        return variance(sigma, sigma_next).clamp(min=floor).log().to(denoised.x0)
    small, large = variance_bounds(sigma, sigma_next)
    small = small.clamp(min=floor)
    match variance:
        case "fixed_small":
            return scalar_like(small.log(), denoised.x0)
        case "fixed_large":
            return scalar_like(large.log(), denoised.x0)
        case "learned":
            if denoised.var_frac is None:
                raise ValueError("this model has no learned variance; use 'fixed_small' or 'fixed_large'")
            return interpolate_log(denoised.var_frac, small, large)
    raise ValueError(f"unknown variance {variance!r}; use 'fixed_small', 'fixed_large' or 'learned'")


def gaussian_kl(mean_p: Tensor, log_var_p: Tensor, mean_q: Tensor, log_var_q: Tensor) -> Tensor:
    """KL(N(mean_p, var_p) || N(mean_q, var_q)) of every element, in nats."""
    ratio = log_var_p - log_var_q
    return 0.5 * (torch.expm1(ratio) - ratio + (mean_p - mean_q).square() * (-log_var_q).exp())


# DDPM, equation 13: the density of an 8-bit value is the mass of its bin; the outermost bins reach to infinity.
def discretized_nll(x0: Tensor, mean: Tensor, log_var: Tensor, bins: int = 256) -> Tensor:
    """-log p(x0) of every element in nats, for x0 in [-1, 1] on `bins` equidistant values."""
    half = 1 / (bins - 1)
    inverse_std = (-0.5 * log_var).exp()
    upper, lower = (x0 - mean + half) * inverse_std, (x0 - mean - half) * inverse_std
    # Far in the upper tail both CDFs round to 1: reflect, so that the mass is a difference of small numbers.
    reflect = (upper + lower) > 0
    upper, lower = torch.where(reflect, -lower, upper), torch.where(reflect, -upper, lower)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    middle = log_upper + torch.log1p(-(log_lower - log_upper).exp().clamp(max=1 - 1e-7))
    edge = half / 2  # the outermost values differ from their neighbours whatever the rounding
    first = torch.special.log_ndtr((x0 - mean + half) * inverse_std)
    last = torch.special.log_ndtr(-(x0 - mean - half) * inverse_std)
    return -torch.where(x0 < -1 + edge, first, torch.where(x0 > 1 - edge, last, middle))


def bits_per_dimension(nats: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """The mean over a sample's elements, in bits."""
    return nats.flatten(1).mean(1) / math.log(2)
