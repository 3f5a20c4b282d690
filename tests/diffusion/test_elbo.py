"""The variational bound against closed forms: of Gaussian data, everything in it is known."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from unclip.diffusion.analytic import AnalyticVariance
from unclip.diffusion.denoiser import Denoised
from unclip.diffusion.elbo import prior_term, variational_bound
from unclip.diffusion.parametrization import ProcessConfig
from unclip.diffusion.posterior import variance_bounds, variance_floor
from unclip.rng import Noise

VARIANCE = 0.3
PROCESS = ProcessConfig(parametrization="eps", schedule="linear").build()


def exact(x: Tensor, sigma: Tensor) -> Denoised:
    return Denoised(x * VARIANCE / (VARIANCE + sigma.to(x).reshape(-1, 1) ** 2), torch.full_like(x, 0.5))


def spread(sigma: Tensor) -> Tensor:
    """Var(x0 | x)"""
    return VARIANCE * sigma**2 / (VARIANCE + sigma**2)


OPTIMAL = AnalyticVariance(PROCESS.table.sigmas, spread(PROCESS.table.sigmas))


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Noise]:
    noise = Noise(range(3000))
    return noise.normal(20).double() * math.sqrt(VARIANCE), noise


def closed_form_steps(sigmas: Tensor, variance) -> Tensor:
    """E[L_{t-1}] and E[L_0] in bits, over data and noise, for a variance given as a function of both sigmas."""
    terms = []
    for sigma, after in pairwise(sigmas):
        model = variance(sigma, after)
        error = (1 - after**2 / sigma**2) ** 2 * spread(sigma)
        if after > 0:
            small, _ = variance_bounds(sigma, after)
            terms.append(0.5 * ((small + error) / model - 1 - torch.log(small / model)))
        else:
            terms.append(0.5 * (torch.log(2 * math.pi * model) + error / model))
    return torch.stack(terms) / math.log(2)


@pytest.mark.parametrize("steps", [5, 40])
@pytest.mark.parametrize("name", ["fixed_small", "fixed_large", "learned", "analytic"])
def test_every_term_of_a_gaussian(name: str, steps: int, data) -> None:
    x0, noise = data
    sigmas = PROCESS.grid(steps)
    floor = torch.tensor(variance_floor(sigmas[-2].item(), sigmas[-3].item()), dtype=torch.float64)

    def variance(sigma: Tensor, after: Tensor) -> Tensor:
        small, large = variance_bounds(sigma, after)
        small = torch.maximum(small, floor)
        return {"fixed_small": small, "fixed_large": large, "learned": (small * large).sqrt()}[name]

    chosen = OPTIMAL if name == "analytic" else name
    bound = variational_bound(exact, x0, sigmas, noise, variance=chosen, bins=None)
    expected = closed_form_steps(sigmas, OPTIMAL if name == "analytic" else variance)
    assert bound.steps.shape == (3000, steps)
    assert torch.allclose(bound.steps.mean(0), expected, rtol=0.03, atol=1e-4)
    assert bound.total.mean().item() == pytest.approx((expected.sum() + bound.prior.mean()).item(), rel=0.02)


@pytest.mark.parametrize("steps", [3, 10])
def test_the_optimal_variance_makes_the_bound_tight(steps: int) -> None:
    """Then the bound is the data's own likelihood, in any number of steps, and no other variance gets there."""
    noise = Noise(range(4000))
    x0 = noise.normal(20).double() * math.sqrt(VARIANCE)
    nll = -Normal(0, math.sqrt(VARIANCE)).log_prob(x0).mean(1) / math.log(2)

    def excess(variance) -> Tensor:
        return (
            variational_bound(exact, x0, PROCESS.grid(steps), noise, variance=variance, bins=None).total - nll
        )

    assert excess(OPTIMAL).mean().item() == pytest.approx(0, abs=0.02)
    assert excess("fixed_large").mean() > 0.05
    assert excess("fixed_small").mean() > 0.05


def test_the_last_step_borrows_the_variance_of_the_step_before() -> None:
    """Improved DDPM's clipped variance: at sigma = 1 after 2, 1² (2² - 1²) / 2² in the units of x_t, whose abar is 1/2."""
    x0 = torch.full((2, 3), 0.25)
    sigmas = torch.tensor([3.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    bound = variational_bound(
        lambda x, sigma: Denoised(torch.full_like(x, 0.25)), x0, sigmas, Noise([1, 2]), bins=None
    )
    assert bound.steps[0].tolist() == pytest.approx([0, 0, 0.5 * math.log2(2 * math.pi * 0.375)], abs=1e-6)


def test_prior_term() -> None:
    x0 = torch.tensor([[0.3, -0.9], [1.0, 0.0]], dtype=torch.float64)
    sigma = 2.0
    abar = 1 / (1 + sigma**2)
    textbook = kl_divergence(
        Normal(abar**0.5 * x0, torch.full_like(x0, (1 - abar) ** 0.5)),
        Normal(torch.zeros_like(x0), torch.ones_like(x0)),
    )
    assert torch.allclose(prior_term(x0, sigma), textbook.mean(1) / math.log(2))
    assert prior_term(x0, 157.0).max() < 1e-4


def test_two_valued_data_costs_one_bit() -> None:
    """A model that knows such data exactly pays one bit a dimension for it, and none of it in the last step."""
    noise = Noise(range(300))
    x0 = torch.where(noise.uniform(16) < 0.5, -1.0, 1.0).float()

    def knows(x: Tensor, sigma: Tensor) -> Denoised:
        return Denoised(torch.tanh(x / sigma.to(x).reshape(-1, 1) ** 2))

    bound = variational_bound(knows, x0, PROCESS.grid(250), noise, bins=2)
    assert bound.steps[:, -1].max() < 1e-6
    assert bound.total.mean().item() == pytest.approx(1.0, abs=0.06)


def test_grids_that_have_no_bound() -> None:
    x0, noise = torch.zeros(2, 3), Noise([1, 2])
    for sigmas in (PROCESS.grid(1), PROCESS.grid(5)[:-1]):
        with pytest.raises(ValueError, match="ending in 0"):
            variational_bound(exact, x0, sigmas, noise)
