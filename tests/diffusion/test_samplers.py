"""What every sampler promises: a sample knows nothing of its batch, one noise gives one picture, steps are yielded."""

import math

import pytest
import torch
from torch import Tensor

from unclip.diffusion import grids
from unclip.diffusion.analytic import AnalyticVariance
from unclip.diffusion.denoiser import Denoised
from unclip.diffusion.guidance import classifier_free, dynamic_threshold
from unclip.diffusion.inpainting import repaint
from unclip.diffusion.parametrization import Preconditioned, ProcessConfig
from unclip.diffusion.paths import invert, start
from unclip.diffusion.samplers import SAMPLERS, ddim, ddpm, heun, sample
from unclip.rng import Noise

PROCESS = ProcessConfig(parametrization="v", learned_variance=True).build()
OPTIONS = {
    "ddim": [{}, {"eta": 1.0}],
    "ddpm": [
        {"variance": "fixed_small"},
        {"variance": "fixed_large"},
        {"variance": "learned"},
        {"variance": AnalyticVariance(PROCESS.table.sigmas, 0.1 * PROCESS.table.abar)},
    ],
    "euler": [{}],
    "euler_ancestral": [{}],
    "plms": [{}, {"mixed": "v"}],
    "heun": [{}, {"churn": 5.0}],
    "dpmpp_2m": [{}],
    "dpmpp_2m_sde": [{}],
}
CASES = [(name, options) for name, choices in OPTIONS.items() for options in choices]


def network(x: Tensor, label: Tensor, condition: float) -> Tensor:
    answer = torch.tanh(x + condition) - 0.3 * x.roll(1, -1) + label[:, None, None, None] / 2000
    return torch.cat([answer, answer.cos()], dim=1)


def draw(name: str, options: dict, seeds: list[int], guided: bool = True) -> Tensor:
    model = Preconditioned(network, PROCESS)
    denoise = model.bind(0.5)
    if guided:
        denoise = dynamic_threshold(classifier_free(denoise, model.bind(0.0), 3.0, rescale=0.5))
    noise, sigmas = Noise(seeds), PROCESS.grid(12, "karras")
    x = start(noise.normal(3, 4, 4), sigmas[0])
    return sample(SAMPLERS[name](denoise, x, sigmas, noise=noise, **options))


def test_every_sampler_is_covered() -> None:
    assert set(OPTIONS) == set(SAMPLERS)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_sample_does_not_depend_on_its_batch(name: str, options: dict) -> None:
    together = draw(name, options, [11, 12, 13])
    alone = torch.cat([draw(name, options, [seed]) for seed in (11, 12, 13)])
    assert torch.equal(together, alone)
    assert torch.equal(draw(name, options, [13, 11]), together[[2, 0]])


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_seed_decides(name: str, options: dict) -> None:
    first = draw(name, options, [11])
    assert torch.equal(first, draw(name, options, [11]))
    assert (first - draw(name, options, [12])).abs().max() > 1e-2


def test_repaint_and_inversion_do_not_depend_on_the_batch() -> None:
    denoise = dynamic_threshold(Preconditioned(network, PROCESS).bind(0.5))
    sigmas = PROCESS.grid(6, "karras")

    def both(seeds: list[int]) -> Tensor:
        noise = Noise(seeds)
        known = noise.normal(3, 4, 4).clamp(-1, 1)
        mask = torch.zeros_like(known)
        mask[..., :2] = 1
        x = start(noise.normal(3, 4, 4), sigmas[0])
        painted = sample(repaint(denoise, x, sigmas, known, mask, noise=noise, resamplings=2))
        return painted + sample(invert(denoise, painted, sigmas))

    assert torch.equal(both([5, 6]), torch.cat([both([5]), both([6])]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_are_yielded_one_by_one(name: str) -> None:
    calls = []

    def denoise(x: Tensor, sigma: Tensor) -> Denoised:
        calls.append(sigma)
        return Denoised(0.1 * x)

    noise, sigmas = Noise([1, 2]), grids.karras(0.1, 10.0, 5)
    x = start(noise.normal(3), sigmas[0])
    steps = SAMPLERS[name](denoise, x, sigmas, noise=noise)
    assert not calls
    first = next(steps)
    assert first.i == 0
    assert len(calls) == (2 if name in ("heun", "plms") else 1)
    assert calls[0].dtype == torch.float64
    assert calls[0].tolist() == pytest.approx([10.0, 10.0])
    rest = list(steps)
    assert [step.i for step in rest] == [1, 2, 3, 4]
    # The step to sigma = 0 takes the clean estimate as it is, with no noise on it.
    assert torch.equal(rest[-1].x, rest[-1].x0)
    assert rest[-1].x.dtype == torch.float32


def test_ddim_with_eta_1_is_ddpm_with_the_small_variance() -> None:
    def run(sampler, **options) -> Tensor:
        noise, sigmas = Noise([1, 2]), PROCESS.grid(10)
        denoise = Preconditioned(network, PROCESS).bind(0.5)
        return sample(
            sampler(denoise, start(noise.normal(3, 4, 4), sigmas[0]), sigmas, noise=noise, **options)
        )

    reference = run(ddpm, variance="fixed_small")
    assert torch.allclose(run(ddim, eta=1.0), reference, atol=1e-5)
    assert not torch.allclose(run(ddim, eta=0.9), reference, atol=1e-2)


def test_the_cosine_schedules_first_step_keeps_its_digits() -> None:
    """From sigma = 20291 in float32 as in float64, for samplers that could lose x0 below x."""
    sigmas = torch.tensor([20291.0, 3.75, 1.0, 0.0], dtype=torch.float64)

    def denoise(x: Tensor, sigma: Tensor) -> Denoised:
        return Denoised(torch.sin(x / (1 + sigma.to(x)[:, None] ** 2).sqrt()))

    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for name in ("ddim", "dpmpp_2m"):
        exact = sample(SAMPLERS[name](denoise, start(z, sigmas[0]), sigmas))
        assert (
            sample(SAMPLERS[name](denoise, start(z.float(), sigmas[0]), sigmas)) - exact
        ).abs().max() < 1e-5


def test_errors_name_the_remedy() -> None:
    x, denoise = (
        torch.zeros(1, 2),
        Preconditioned(lambda x, label, c: x, ProcessConfig(parametrization="x0").build()),
    )
    sigmas = grids.karras(0.1, 10.0, 4)
    with pytest.raises(ValueError, match="noise="):
        sample(ddim(denoise.bind(None), x, sigmas, eta=0.5))
    with pytest.raises(ValueError, match="noise="):
        sample(heun(denoise.bind(None), x, sigmas, churn=3.0))
    with pytest.raises(ValueError, match="no learned variance"):
        sample(ddpm(denoise.bind(None), x, sigmas, noise=Noise([1]), variance="learned"))
    for grid in (sigmas.flip(0), sigmas[:1], torch.tensor([1.0, math.nan, 0.0], dtype=torch.float64)):
        with pytest.raises(ValueError, match="descending"):
            sample(ddim(denoise.bind(None), x, grid))
