"""The optimal variance of the reverse step, estimated from a model: Analytic-DPM (Bao et al., arXiv 2201.06503)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import Denoiser, NoiseSource, draw, noise_level
from unclip.diffusion.posterior import variance_bounds


# Analytic-DPM, equation 8, Gamma_n, times the noise's variance: the score is -eps / sigma.
def second_moment(
    denoise: Denoiser, x0: Float[Tensor, "b ..."], sigmas: Float[Tensor, " t"], noise: NoiseSource
) -> Float[Tensor, " t"]:
    """E ||eps_theta(x0 + sigma eps, sigma)||² / d at each noise level, averaged over this batch, float64.

    It is 1 for a model that knows the noise exactly, and less the more it has to guess. Average it over as many
    batches as there is time for: the paper takes 1,000 to 100,000 samples.
    """
    moments = []
    for sigma in sigmas.tolist():
        x = x0 + sigma * draw(noise, x0)
        eps = (x - denoise(x, noise_level(sigma, x)).x0) / sigma
        moments.append(eps.double().square().mean())
    return torch.stack(moments).cpu()


@dataclass(frozen=True, eq=False)
class AnalyticVariance:
    """The optimal variance as a function of (sigma, sigma_next), for `ancestral` and for the variational bound.

    `second_moment` was estimated at the ascending noise levels `sigmas`; it is interpolated between them in log sigma.
    `x0_range`, half the width of the interval that the data lies in, bounds the variance of x0 as in the paper's
    theorem 2.
    """

    sigmas: Float[Tensor, " t"]
    second_moment: Float[Tensor, " t"]
    x0_range: float | None = None

    def __post_init__(self) -> None:
        if not bool((self.sigmas.diff() > 0).all()):
            raise ValueError("the noise levels of an analytic variance have to ascend; flip both tensors")

    def moment(self, sigma: Tensor) -> Tensor:
        """The second moment at any noise level, within [0, 1] as it has to be."""
        log_table, values = self.sigmas.to(sigma).log(), self.second_moment.to(sigma)
        log_sigma = sigma.log().clamp(log_table[0], log_table[-1])
        above = torch.searchsorted(log_table, log_sigma).clamp(1, len(log_table) - 1)
        share = (log_sigma - log_table[above - 1]) / (log_table[above] - log_table[above - 1])
        return torch.lerp(values[above - 1], values[above], share).clamp(0, 1)

    # Analytic-DPM, equations 9 and 12 to 14, with lambda² = beta tilde, in sigma space: x_next given x is
    # x0 (1 - sigma_next²/sigma²) plus something known, so the variance of x0 given x is passed on.
    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """``beta tilde + (1 - sigma_next²/sigma²)² Var(x0 | x)``, with ``Var(x0 | x) = sigma² (1 - moment)``."""
        small, _ = variance_bounds(sigma, sigma_next)
        x0_variance = sigma.square() * (1 - self.moment(sigma))
        if self.x0_range is not None:
            x0_variance = x0_variance.clamp(max=self.x0_range**2)
        return small + (1 - (sigma_next / sigma).square()).square() * x0_variance
