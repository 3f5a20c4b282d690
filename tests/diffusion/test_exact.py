"""Samplers and parametrisations on data whose denoiser is known exactly: a mixture of Gaussians, and one Gaussian."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from unclip.diffusion import grids
from unclip.diffusion.analytic import AnalyticVariance, measure_x0_variance
from unclip.diffusion.denoiser import Denoised, Denoiser
from unclip.diffusion.parametrization import Preconditioned, Process, ProcessConfig
from unclip.diffusion.paths import start
from unclip.diffusion.samplers import SAMPLERS, ddim, ddpm, dpmpp_2m_sde, euler_ancestral, heun, sample
from unclip.rng import Noise

WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([-0.8, 0.5], dtype=torch.float64)
STDS = torch.tensor([0.15, 0.25], dtype=torch.float64)
MEAN = (WEIGHTS * MEANS).sum()
VARIANCE = (WEIGHTS * (STDS**2 + MEANS**2)).sum() - MEAN**2
SCHEDULES = {"eps": "cosine", "v": "cosine", "x0": "cosine", "flow": "flow", "edm": "edm"}
STEPS = {
    "ddim": 200,
    "ddpm": 200,
    "euler": 200,
    "euler_ancestral": 200,
    "plms": 60,
    "heun": 60,
    "dpmpp_2m": 60,
    "dpmpp_2m_sde": 100,
}


def mixture(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x0 + sigma eps = x]: the components' own answers, weighted by how likely each made x."""
    total = STDS**2 + sigma.double().reshape(-1, 1, 1) ** 2
    away = x.double()[..., None] - MEANS
    share = torch.softmax(WEIGHTS.log() - 0.5 * total.log() - 0.5 * away**2 / total, dim=-1)
    return (share * (MEANS + STDS**2 / total * away)).sum(-1)


def exact(x: Tensor, sigma: Tensor) -> Denoised:
    return Denoised(mixture(x, sigma).to(x), torch.full_like(x, 0.5))


def perfect_network(process: Process, name: str):
    """A network that predicts exactly what its row asks for, written in the textbook's own terms and states."""

    def forward(scaled: Tensor, label: Tensor, condition: object = None) -> Tensor:
        label = label.double()
        if process.table is not None:
            sigma = process.table.sigma_of(label)
        else:
            label = label / process.parametrization.label_scale
            sigma = torch.exp(4 * label) if name == "edm" else label / (1 - label)
        s, state = sigma[:, None], scaled.double()
        abar = 1 / (1 + s**2)
        if name in ("eps", "v", "x0"):  # state: sqrt(abar) x0 + sqrt(1 - abar) eps
            x0 = mixture(state / abar.sqrt(), sigma)
            eps = (state - abar.sqrt() * x0) / (1 - abar).sqrt()
            answer = {"eps": eps, "x0": x0, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x0}[name]
        elif name == "flow":  # state: (1 - t) x0 + t eps
            t = s / (1 + s)
            x0 = mixture(state / (1 - t), sigma)
            answer = (state - x0) / t
        else:  # EDM, appendix B.6: state and target of unit variance
            deviation = (s**2 + 0.25).sqrt()
            x0 = mixture(state * deviation, sigma)
            answer = (x0 - 0.25 / deviation**2 * (state * deviation)) / (s * 0.5 / deviation)
        return answer.to(scaled)

    return forward


def statistics_agree(x: Tensor, slack: float) -> None:
    """Mean, variance and the weight of the left mode, within four standard errors and `slack`."""
    n, x = x.numel(), x.double()
    assert abs(x.mean() - MEAN) < 4 * math.sqrt(VARIANCE / n) + slack
    assert abs(x.var() - VARIANCE) < 4 * VARIANCE * math.sqrt(2 / n) + slack
    assert abs((x < -0.3).double().mean() - WEIGHTS[0]) < 4 * math.sqrt(0.21 / n) + slack


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_with_every_row_reaches_the_mixture(sampler: str, name: str) -> None:
    process = ProcessConfig(parametrization=name, schedule=SCHEDULES[name]).build()
    denoise = Preconditioned(perfect_network(process, name), process).bind(None)
    noise = Noise(range(1500))
    if process.table is not None and sampler in ("ddim", "ddpm"):
        sigmas = process.grid(STEPS[sampler])
    else:
        sigmas = grids.karras(0.01, 80.0, STEPS[sampler])
    x = sample(SAMPLERS[sampler](denoise, start(noise.normal(2), sigmas[0]), sigmas, noise=noise))
    assert x.dtype == torch.float32
    statistics_agree(x, slack=0.01)


def test_a_wrong_denoiser_is_noticed() -> None:
    noise, sigmas = Noise(range(1500)), grids.karras(0.01, 80.0, 100)

    def biased(x: Tensor, sigma: Tensor) -> Denoised:
        return Denoised(1.05 * exact(x, sigma).x0 + 0.05)

    x = sample(ddim(biased, start(noise.normal(2), 80.0), sigmas))
    with pytest.raises(AssertionError):
        statistics_agree(x, slack=0.01)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("schedule", ["cosine", "linear", "scaled_linear"])
def test_rows_agree_on_one_table(name: str, schedule: str) -> None:
    """On one table every row is the same denoiser, to the precision of float32 at its own noise level."""
    process = ProcessConfig(parametrization=name, schedule=schedule).build()
    model = Preconditioned(perfect_network(process, name), process)
    sigma = process.table.sigmas[[0, 10, 200, 500, 800, 990]]
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * (1 + sigma[:, None]).float()
    error = (model(x, sigma).x0 - mixture(x, sigma)).abs().amax(1)
    assert (error / (1 + sigma)).max() < 1e-6


# Convergence. Orders are told from the errors at n and 2n steps along one smooth grid, even in log sigma.


DETERMINISTIC = {"ddim": 1, "heun": 2, "dpmpp_2m": 2, "plms": 2}
# Stochastic ones whose next state follows from x alone, and those that remember a step.
ONE_STATE = [
    (ddim, {"eta": 0.5}, 1),
    (ddim, {"eta": 1.0}, 1),
    (ddpm, {"variance": "fixed_small"}, 1),
    (ddpm, {"variance": "learned"}, 1),
    (ddpm, {"variance": "fixed_large"}, 1),
    (euler_ancestral, {}, 1),
    (heun, {"churn": 5.0}, 2),
]
TWO_STATES = [(dpmpp_2m_sde, {}, 2), (dpmpp_2m_sde, {"eta": 0.5}, 2)]


def test_every_sampler_states_its_order() -> None:
    measured = {SAMPLERS[name].function: order for name, order in DETERMINISTIC.items()}
    measured |= {sampler: order for sampler, _, order in ONE_STATE + TWO_STATES}
    assert {sampler.function: sampler.order for sampler in SAMPLERS.values()} == measured


def smooth_grid(n: int) -> Tensor:
    return torch.linspace(math.log(20.0), math.log(0.05), n + 1, dtype=torch.float64).exp()


def orders(errors: list[float]) -> list[float]:
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


ORDER_START = 20.0 * torch.linspace(-1.5, 1.5, 21, dtype=torch.float64)[:, None]


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return sample(SAMPLERS["heun"](exact, ORDER_START, smooth_grid(600)))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("sampler", "order"), DETERMINISTIC.items())
def test_order_of_the_deterministic_samplers(sampler: str, order: int, name: str, truth: Tensor) -> None:
    process = ProcessConfig(parametrization=name, schedule=SCHEDULES[name]).build()
    denoise = Preconditioned(perfect_network(process, name), process).bind(None)
    errors = [
        (sample(SAMPLERS[sampler](denoise, ORDER_START, smooth_grid(n))) - truth).abs().mean().item()
        for n in (25, 50, 100)
    ]
    assert orders(errors) == pytest.approx([order, order], abs=0.25)


class Impulses:
    """Noise that lets a linear sampler be read off exactly: draw k moves sample k + 1 only."""

    def __init__(self, batch: int) -> None:
        self.batch, self.k = batch, 0

    def normal(self, *shape: int) -> Tensor:
        self.k += 1
        draw = torch.zeros(self.batch, *shape, dtype=torch.float64)
        draw[self.k] = 1
        return draw


def gaussian(variance: float) -> Denoiser:
    """The exact denoiser of N(0, variance); it answers a learned variance half way."""

    def denoise(x: Tensor, sigma: Tensor) -> Denoised:
        s = sigma.to(x).reshape(-1, 1)
        return Denoised(x * variance / (variance + s**2), torch.full_like(x, 0.5))

    return denoise


def exact_variance(sampler, sigmas: Tensor, data_variance: float, **options) -> float:
    """The variance of what a stochastic sampler makes of Gaussian data, with no sampling error.

    The sampler is then linear in its start and its draws, so its result's variance is the sum of the squares of what
    a unit of each alone turns into.
    """
    batch = len(sigmas) + 1
    x = torch.zeros(batch, 1, dtype=torch.float64)
    x[0] = math.sqrt(data_variance + sigmas[0].item() ** 2)
    return (
        sample(sampler(gaussian(data_variance), x, sigmas, noise=Impulses(batch), **options))
        .square()
        .sum()
        .item()
    )


@pytest.mark.parametrize(("sampler", "options", "order"), [*ONE_STATE, *TWO_STATES])
def test_weak_order_of_the_stochastic_samplers(sampler, options: dict, order: int) -> None:
    target = 0.3 + 0.05**2
    errors = [abs(exact_variance(sampler, smooth_grid(n), 0.3, **options) - target) for n in (100, 200, 400)]
    assert orders(errors) == pytest.approx([order, order], abs=0.25)


# The same on the mixture, for samplers whose state is x alone: E[x²] of the result by quadrature, going backwards.


class Constant:
    """Noise that is the same number everywhere."""

    def __init__(self, value: float, batch: int) -> None:
        self.value, self.batch = value, batch

    def normal(self, *shape: int) -> Tensor:
        return torch.full((self.batch, *shape), self.value, dtype=torch.float64)


def interpolated(values: Tensor, at: Tensor) -> Tensor:
    """`values` on the whole numbers 0, 1, ... at any place, by the cubic through the four nearest."""
    first = (at.floor().long() - 1).clamp(0, len(values) - 4)
    t = at - first
    weights = (
        -(t - 1) * (t - 2) * (t - 3) / 6,
        t * (t - 2) * (t - 3) / 2,
        -t * (t - 1) * (t - 3) / 2,
        t * (t - 1) * (t - 2) / 6,
    )
    return sum((weight * values[first + k] for k, weight in enumerate(weights)), torch.zeros_like(at))


def second_moment(sampler, sigmas: Tensor, **options) -> float:
    """E[x²] of what a stochastic sampler makes of the mixture, from its exact distribution at `sigmas[0]`."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(12))
    weights = weights / weights.sum()
    places = torch.linspace(-6, 6, 301, dtype=torch.float64)
    spacing = (places[1] - places[0]).item()
    # The grid of x at each level, in standard deviations of the mixture there.
    widths = (VARIANCE + sigmas.square()).sqrt()
    expected = (widths[-1] * places).square()
    for here, after in reversed(list(pairwise(range(len(sigmas))))):
        x = (widths[here] * places)[:, None]
        total = torch.zeros_like(places)
        for node, weight in zip(nodes.tolist(), weights.tolist()):
            noise = Constant(node, len(x))
            moved = sample(sampler(exact, x, sigmas[[here, after]], noise=noise, **options))[:, 0]
            total += weight * interpolated(expected, (moved / widths[after] - places[0]) / spacing)
        expected = total
    x, spread = widths[0] * places[:, None], STDS.square() + sigmas[0] ** 2
    density = (WEIGHTS / (2 * math.pi * spread).sqrt() * (-0.5 * (x - MEANS) ** 2 / spread).exp()).sum(1)
    return (expected * density).sum().item() * spacing * widths[0].item()


@pytest.mark.parametrize(("sampler", "options", "order"), ONE_STATE)
def test_weak_order_on_the_mixture(sampler, options: dict, order: int) -> None:
    target = (VARIANCE + MEAN**2 + 0.05**2).item()
    errors = []
    for n in (50, 100):
        # A step alone is a whole run to Heun's sampler, which divides its churn by the steps.
        given = {name: value / n if name == "churn" else value for name, value in options.items()}
        errors.append(abs(second_moment(sampler, smooth_grid(n), **given) - target))
    assert orders(errors) == pytest.approx([order], abs=0.3)


# Analytic-DPM


def gaussian_x0_variance(sigma: Tensor, variance: float) -> Tensor:
    return variance * sigma**2 / (variance + sigma**2)


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_analytic_variance_makes_gaussians_exact_in_any_number_of_steps(steps: int) -> None:
    table = ProcessConfig(parametrization="x0").build().table
    sigmas = grids.respaced(table, steps + 1)[:-1]
    variance = AnalyticVariance(table.sigmas, gaussian_x0_variance(table.sigmas, 0.3))
    target = 0.3 + sigmas[-1].item() ** 2
    assert exact_variance(ddpm, sigmas, 0.3, variance=variance) == pytest.approx(target, rel=1e-9)
    for name in ("fixed_small", "fixed_large"):
        assert exact_variance(ddpm, sigmas, 0.3, variance=name) != pytest.approx(target, rel=1e-2)


def test_analytic_variance_is_the_papers_formula() -> None:
    """Analytic-DPM, equations 8 to 10, in the paper's own symbols; ours is in units of sqrt(abar_next)."""
    table = ProcessConfig(parametrization="eps").build().table
    abar = table.abar
    t, before = torch.tensor([100, 500, 900]), torch.tensor([50, 450, 700])
    moment = torch.tensor([0.4, 0.8, 0.97], dtype=torch.float64)
    alpha = abar[t] / abar[before]
    beta_bar, beta_bar_before = 1 - abar[t], 1 - abar[before]
    lambda_squared = beta_bar_before / beta_bar * (1 - alpha)
    root = (beta_bar / alpha).sqrt() - (beta_bar_before - lambda_squared).sqrt()
    paper = lambda_squared + root**2 * (1 - moment)
    ours = AnalyticVariance.from_second_moment(table.sigmas[t], moment)(table.sigmas[t], table.sigmas[before])
    assert torch.allclose(ours * abar[before], paper, rtol=1e-9)


def test_analytic_variance_is_bounded() -> None:
    sigmas = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    here, after = sigmas[2], sigmas[1]
    small = AnalyticVariance.from_second_moment(sigmas, torch.full((3,), 1.2, dtype=torch.float64))(
        here, after
    )
    assert small.item() == pytest.approx((after**2 * (here**2 - after**2) / here**2).item())
    wide = AnalyticVariance.from_second_moment(sigmas, torch.zeros(3, dtype=torch.float64), x0_range=1.0)
    assert wide(here, after).item() == pytest.approx((small + (1 - (after / here) ** 2) ** 2).item())
    with pytest.raises(ValueError, match="ascend"):
        AnalyticVariance(sigmas.flip(0), torch.zeros(3, dtype=torch.float64))


def test_measured_x0_variance_of_an_exact_denoiser_is_the_papers() -> None:
    """The mean squared error equals sigma² (1 - E eps²), but for the latter's sampling error at large sigma."""
    sigmas = torch.tensor([0.1, 0.5, 2.0, 20000.0], dtype=torch.float64)
    noise = Noise(range(4000))
    x0 = noise.normal(8) * math.sqrt(0.3)
    truth = gaussian_x0_variance(sigmas, 0.3)
    assert torch.allclose(measure_x0_variance(gaussian(0.3), x0, sigmas, noise), truth, rtol=0.03)

    def paper(sigma: Tensor) -> float:
        x = x0 + sigma.item() * noise.normal(8)
        eps = (x - gaussian(0.3)(x, sigma.expand(len(x))).x0) / sigma.item()
        return (sigma**2 * (1 - eps.double().square().mean())).item()

    assert [paper(sigma) for sigma in sigmas[1:3]] == pytest.approx(truth[1:3].tolist(), rel=0.2)
    assert abs(paper(sigmas[3]) - truth[3].item()) > 1000
