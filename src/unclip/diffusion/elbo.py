"""The variational bound, term by term, in bits per dimension: L = L_T + sum of L_{t-1} + L_0.

DDPM (arXiv 2006.11239), equation 5: L_T = KL(q(x_T | x_0) || p(x_T)), L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p_theta),
L_0 = -log p_theta(x_0 | x_1). A divergence does not change with the units, so all of it is computed on
x = x0 + sigma eps; L_0 is on x_0 itself, which has no other units.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import Denoiser, NoiseSource, draw, noise_level
from unclip.diffusion.posterior import (
    Variance,
    bits_per_dimension,
    discretized_nll,
    gaussian_kl,
    posterior_mean,
    reverse_log_variance,
    variance_bounds,
    variance_floor,
)


@dataclass(frozen=True, eq=False)
class Bound:
    """The bound of each sample, in bits per dimension.

    `prior` is L_T. `steps` holds L_{t-1} in sampling order, the noisiest first, and L_0 last.
    """

    prior: Float[Tensor, " b"]
    steps: Float[Tensor, "b n"]

    @property
    def total(self) -> Float[Tensor, " b"]:
        """An upper bound on -log2 p(x0), per dimension."""
        return self.prior + self.steps.sum(1)


@torch.no_grad()
def variational_bound(
    denoise: Denoiser,
    x0: Float[Tensor, "b ..."],
    sigmas: Float[Tensor, " n"],
    noise: NoiseSource,
    *,
    variance: Variance = "fixed_small",
    bins: int | None = 256,
) -> Bound:
    """One draw of the bound of each sample; its mean over draws is the bound.

    `sigmas` is a grid of at least two noise levels and a 0, the whole table for the numbers that papers report. `x0`
    lies in [-1, 1] on `bins` equidistant values; with `bins` None it is continuous and the bound is on its density. A
    variance function is used as it is in the last step; the named ones are bounded from below as in Improved DDPM.
    """
    levels = sigmas.double().cpu()
    if len(levels) < 3 or levels[-1] != 0 or not bool((levels.diff() < 0).all()):
        raise ValueError("the bound needs a descending grid of two or more noise levels, ending in 0")
    floor = 0.0 if callable(variance) else variance_floor(levels[-2].item(), levels[-3].item())
    steps = []
    for sigma, sigma_next in pairwise(levels):
        x = x0 + sigma.item() * draw(noise, x0)
        denoised = denoise(x, noise_level(sigma, x))
        log_variance = reverse_log_variance(variance, denoised, sigma, sigma_next, floor)
        mean = posterior_mean(x, denoised.x0, sigma, sigma_next)
        if sigma_next > 0:
            small, _ = variance_bounds(sigma, sigma_next)
            term = gaussian_kl(
                posterior_mean(x, x0, sigma, sigma_next), small.log().to(x0), mean, log_variance
            )
        elif bins is None:
            term = 0.5 * (math.log(2 * math.pi) + log_variance + (x0 - mean).square() / log_variance.exp())
        else:
            term = discretized_nll(x0, mean, log_variance, bins)
        steps.append(bits_per_dimension(term))
    return Bound(prior_term(x0, levels[0].item()), torch.stack(steps, dim=1))


def prior_term(x0: Float[Tensor, "b ..."], sigma_max: float) -> Float[Tensor, " b"]:
    """L_T: how far q(x_T | x0) = N(x0, sigma_max²) is from the start p(x_T) = N(0, 1 + sigma_max²)."""
    log_q, log_p = (torch.full_like(x0, math.log(s)) for s in (sigma_max**2, 1 + sigma_max**2))
    return bits_per_dimension(gaussian_kl(x0, log_q, torch.zeros_like(x0), log_p))
