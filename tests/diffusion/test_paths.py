"""Start points, the arc between two vectors, and inversion."""

import math

import pytest
import torch

from unclip.diffusion import grids
from unclip.diffusion.denoiser import Denoised
from unclip.diffusion.parametrization import ProcessConfig
from unclip.diffusion.paths import invert, noised, slerp, start, start_noise, truncate
from unclip.diffusion.samplers import ddim, sample
from unclip.rng import Noise


def tanh_denoiser(x: torch.Tensor, sigma: torch.Tensor) -> Denoised:
    """The exact denoiser of two equally likely values, -0.7 and 0.7, blurred by a deviation of 0.3."""
    total = 0.09 + sigma.to(x).reshape(-1, 1) ** 2
    return Denoised(0.09 / total * x + (1 - 0.09 / total) * 0.7 * torch.tanh(0.7 * x / total))


def test_start_has_the_variance_of_the_forward_process() -> None:
    z = Noise(range(2000)).normal(4)
    x = start(z, torch.tensor(3.0))
    assert x.std().item() == pytest.approx(math.sqrt(10), rel=0.03)
    assert torch.allclose(start_noise(x, 3.0), z)


def test_noised() -> None:
    x0 = torch.full((2000, 3), 0.5)
    x = noised(x0, 2.0, Noise(range(2000)))
    assert x.mean().item() == pytest.approx(0.5, abs=0.1)
    assert x.std().item() == pytest.approx(2.0, rel=0.05)


def test_truncate() -> None:
    sigmas = grids.karras(0.1, 10.0, 10)
    assert torch.equal(truncate(sigmas, 1.0), sigmas)
    assert torch.equal(truncate(sigmas, 0.3), sigmas[7:])
    assert torch.equal(truncate(sigmas, 0.01), sigmas[9:])
    for strength in (0.0, 1.1):
        with pytest.raises(ValueError, match="strength"):
            truncate(sigmas, strength)


def test_slerp_walks_the_arc_at_even_speed() -> None:
    a, b = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    for theta in (0.0, 0.25, 0.5, 1.0):
        angle = theta * math.pi / 2
        assert torch.allclose(
            slerp(a, b, theta), torch.tensor([[math.cos(angle), math.sin(angle), 0.0]]), atol=1e-6
        )


def test_slerp_of_noise_stays_noise() -> None:
    a, b = Noise([1, 2]).normal(3, 16, 16), Noise([3, 4]).normal(3, 16, 16)
    middle = slerp(a, b, torch.tensor([0.5, 0.25]))
    assert torch.allclose(middle.flatten(1).std(1), torch.ones(2), atol=0.06)
    assert torch.allclose(middle[1:], slerp(a[1:], b[1:], 0.25), atol=1e-6)
    # A straight line would lose a third of the deviation half way.
    assert torch.lerp(a, b, 0.5).std() < 0.8


def test_slerp_at_the_ends_of_its_range() -> None:
    a = torch.randn(1, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(slerp(a, a, 0.3), a)
    near = a + 1e-9
    assert torch.allclose(slerp(a, near, 0.3), torch.lerp(a, near, 0.3), rtol=0, atol=1e-12)
    assert torch.allclose(slerp(a, 3 * a, 0.5), 2 * a)
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -a, 0.5)


@pytest.mark.parametrize("spacing", ["respaced", "karras"])
def test_inversion_comes_back(spacing: str) -> None:
    sigmas = ProcessConfig(parametrization="eps").build().grid(50, spacing)
    x0 = torch.linspace(-1.3, 1.3, 40, dtype=torch.float64)[:, None]

    def error(iterations: int) -> float:
        x = sample(invert(tanh_denoiser, x0, sigmas, iterations=iterations))
        return (sample(ddim(tanh_denoiser, x, sigmas)) - x0).abs().mean().item()

    assert error(1) < 0.05
    assert error(3) < error(1)
    assert error(60) < 1e-6


def test_inversion_reaches_noise() -> None:
    sigmas = grids.karras(0.01, 80.0, 100)
    sides = torch.where(Noise(range(2000)).uniform(1) < 0.5, -0.7, 0.7)
    x0 = sides + 0.3 * Noise(range(2000)).fork("blur").normal(1)
    z = start_noise(sample(invert(tanh_denoiser, x0.float(), sigmas, iterations=2)), sigmas[0])
    assert z.mean().item() == pytest.approx(0, abs=0.09)
    assert z.std().item() == pytest.approx(1, abs=0.05)
    assert (z.abs() < 0.6745).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_inversion_yields_as_it_climbs() -> None:
    sigmas = grids.karras(0.1, 10.0, 5)
    steps = list(invert(tanh_denoiser, torch.zeros(1, 1) + 0.5, sigmas))
    assert [step.i for step in steps] == [0, 1, 2, 3, 4]
    assert steps[-1].x.abs() > steps[0].x.abs()
    with pytest.raises(ValueError, match="iteration"):
        next(invert(tanh_denoiser, torch.zeros(1, 1), sigmas, iterations=0))
