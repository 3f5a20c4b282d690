"""The optimal variance of the reverse step, estimated from a model: Analytic-DPM (Bao et al., arXiv 2201.06503).

Given x, what the step has to leave open beyond the posterior's own variance is Var(x0 | x). The paper measures it through
the score, as ``sigma² (1 - E ||eps_theta||² / d)``. Here it is the model's own mean squared error, E ||x0 - D(x)||² / d.
For an exact model the two are equal, because an exact answer is orthogonal to its error; for any other the second is
what minimises the variational bound; and at the cosine schedule's sigma of 20 thousand the first is the difference of two
numbers that have to agree to nine digits, which no number of samples gives.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import Denoiser, NoiseSource, draw, noise_level
from unclip.diffusion.posterior import variance_bounds


@torch.no_grad()
def measure_x0_variance(
    denoise: Denoiser, x0: Float[Tensor, "b ..."], sigmas: Float[Tensor, " t"], noise: NoiseSource
) -> Float[Tensor, " t"]:
    """E ||x0 - D(x0 + sigma eps, sigma)||² / d at each noise level, averaged over this batch, float64.

    Average it over batches: the paper takes 1,000 to 100,000 samples.
    """
    errors = []
    for sigma in sigmas.tolist():
        x = x0 + sigma * draw(noise, x0)
        errors.append((x0 - denoise(x, noise_level(sigma, x)).x0).double().square().mean())
    return torch.stack(errors).cpu()


@dataclass(frozen=True, eq=False)
class AnalyticVariance:
    """The optimal variance as a function of (sigma, sigma_next), for `ddpm` and for the variational bound.

    `x0_variance` is Var(x0 | x) at the ascending noise levels `sigmas`, as `measure_x0_variance` gives it; between
    them, its logarithm is interpolated in log sigma. Raises ValueError when the levels do not ascend.
    """

    sigmas: Float[Tensor, " t"]
    x0_variance: Float[Tensor, " t"]

    def __post_init__(self) -> None:
        if not bool((self.sigmas.diff() > 0).all()):
            raise ValueError("the noise levels of an analytic variance have to ascend; flip both tensors")

    # Analytic-DPM, equation 8 and, for data in [-r, r], theorem 2.
    @classmethod
    def from_second_moment(
        cls, sigmas: Float[Tensor, " t"], moment: Float[Tensor, " t"], x0_range: float | None = None
    ) -> "AnalyticVariance":
        """From the paper's statistic ``E ||eps_theta||² / d``, bounded by what data within ±x0_range can have."""
        variance = sigmas.square() * (1 - moment.clamp(0, 1))
        return cls(sigmas, variance if x0_range is None else variance.clamp(max=x0_range**2))

    def at(self, sigma: Tensor) -> Tensor:
        """Var(x0 | x) at any noise level."""
        table, values = self.sigmas.to(sigma).log(), self.x0_variance.to(sigma).clamp(min=1e-30).log()
        log_sigma = sigma.log().clamp(table[0], table[-1])
        above = torch.searchsorted(table, log_sigma).clamp(1, len(table) - 1)
        share = (log_sigma - table[above - 1]) / (table[above] - table[above - 1])
        return torch.lerp(values[above - 1], values[above], share).exp()

    # Analytic-DPM, equations 8 to 10 with lambda² = beta tilde, in sigma space: given x, x_next is
    # (1 - sigma_next²/sigma²) x0 plus something known plus noise, so that much of x0's variance is passed on.
    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """``beta tilde + (1 - sigma_next²/sigma²)² Var(x0 | x)``."""
        small, _ = variance_bounds(sigma, sigma_next)
        return small + (1 - (sigma_next / sigma).square()).square() * self.at(sigma)
