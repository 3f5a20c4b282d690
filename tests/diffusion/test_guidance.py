"""Guidance, clipping and inpainting."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from unclip.diffusion import grids
from unclip.diffusion.denoiser import Denoised
from unclip.diffusion.guidance import (
    classifier_free,
    classifier_free_batched,
    clip,
    dynamic_threshold,
    join_conditions,
    switch,
)
from unclip.diffusion.inpainting import keep_known, repaint
from unclip.diffusion.parametrization import Preconditioned, ProcessConfig
from unclip.diffusion.paths import start
from unclip.diffusion.samplers import SAMPLERS, sample
from unclip.rng import Noise


def constant(value: float, var_frac: float | None = None):
    def denoise(x: Tensor, sigma: Tensor) -> Denoised:
        return Denoised(torch.full_like(x, value), None if var_frac is None else torch.full_like(x, var_frac))

    return denoise


def refuse(x: Tensor, sigma: Tensor) -> Denoised:
    raise AssertionError("this denoiser was not to be called")


def scaled(factor: float):
    return lambda x, sigma: Denoised(factor * x)


X = torch.linspace(-2, 2, 24).reshape(2, 3, 4)
SIGMA = torch.tensor([1.0, 1.0], dtype=torch.float64)


def test_guidance_extrapolates_and_keeps_the_conditional_variance() -> None:
    answer = classifier_free(constant(2.0, 0.25), constant(1.0, 0.75), 3.0)(X, SIGMA)
    assert torch.equal(answer.x0, torch.full_like(X, 4.0))
    assert torch.equal(answer.var_frac, torch.full_like(X, 0.25))


def test_a_scale_per_sample() -> None:
    answer = classifier_free(constant(2.0), constant(1.0), torch.tensor([1.0, 5.0]))(X, SIGMA)
    assert answer.x0[:, 0, 0].tolist() == [2.0, 6.0]


def test_the_interval_is_open_below_and_spares_the_null_call_outside() -> None:
    guided = classifier_free(constant(2.0), constant(1.0), 3.0, interval=(0.5, 1.0))
    assert guided(X, SIGMA).x0.unique() == 4
    mixed = guided(X, torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert mixed.x0[:, 0, 0].tolist() == [2.0, 4.0]
    outside = classifier_free(constant(2.0), refuse, 3.0, interval=(0.5, 0.9))
    assert outside(X, SIGMA).x0.unique() == 2


def test_rescale_restores_the_deviation() -> None:
    cond, null = scaled(1.0), scaled(0.5)
    full = classifier_free(cond, null, 3.0, rescale=1.0)(X, SIGMA).x0
    assert torch.allclose(full.flatten(1).std(1), X.flatten(1).std(1))
    half = classifier_free(cond, null, 3.0, rescale=0.5)(X, SIGMA).x0
    assert torch.allclose(half, 0.5 * full + 0.5 * 2 * X)


@dataclass(frozen=True)
class Condition:
    shift: Tensor
    note: Tensor | None = None


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("interval", [(0.0, math.inf), (1.5, 2.0), (0.0, 0.5)])
def test_one_forward_pass_equals_two(learned: bool, interval: tuple[float, float]) -> None:
    process = ProcessConfig(parametrization="eps", learned_variance=learned).build()
    calls = []

    def network(x: Tensor, label: Tensor, condition: Condition) -> Tensor:
        calls.append(len(x))
        answer = torch.tanh(x) + condition.shift[:, None, None] + label[:, None, None] / 1000
        return torch.cat([answer, answer.sin()], dim=1) if learned else answer

    model = Preconditioned(network, process)
    cond, null = Condition(torch.tensor([0.3, 0.7])), Condition(torch.zeros(2))
    sigma = torch.tensor([1.0, 2.0], dtype=torch.float64)
    scale = torch.tensor([2.0, 4.0])
    two = classifier_free(model.bind(cond), model.bind(null), scale, interval=interval, rescale=0.3)(X, sigma)
    calls.clear()
    one = classifier_free_batched(model, cond, null, scale, interval=interval, rescale=0.3)(X, sigma)
    assert len(calls) == 1
    assert torch.allclose(one.x0, two.x0, atol=1e-6)
    if learned:
        assert torch.allclose(one.var_frac, two.var_frac)


class Pair(NamedTuple):
    a: Tensor
    b: float


def test_joining_conditions() -> None:
    one, two = torch.zeros(1, 2), torch.ones(1, 2)
    joined = join_conditions({"p": Pair(one, 1.0), "t": (one, None)}, {"p": Pair(two, 1.0), "t": (two, None)})
    assert torch.equal(joined["p"].a, torch.cat([one, two]))
    assert joined["p"].b == 1.0
    assert torch.equal(joined["t"][0], torch.cat([one, two]))
    assert joined["t"][1] is None
    with pytest.raises(ValueError, match="cannot join Tensor with NoneType"):
        join_conditions(Condition(one, note=one), Condition(two))
    with pytest.raises(ValueError, match=r"1\.0 with 2\.0"):
        join_conditions(Pair(one, 1.0), Pair(two, 2.0))


def test_clip() -> None:
    answer = clip(scaled(1.0), -0.5, 1.5)(X, SIGMA).x0
    assert torch.equal(answer, X.clamp(-0.5, 1.5))


def test_dynamic_threshold_is_imagens() -> None:
    x = torch.stack([torch.linspace(-4, 4, 1001), torch.linspace(-0.5, 0.5, 1001)])
    answer = dynamic_threshold(scaled(1.0), quantile=0.9)(x, SIGMA).x0
    s = torch.quantile(x[0].abs(), 0.9)
    assert torch.allclose(answer[0], x[0].clamp(-s, s) / s)
    assert torch.equal(answer[1], x[1])


def test_switch() -> None:
    both = switch(constant(1.0), constant(2.0), threshold=1.0)
    assert both(X, 2 * SIGMA).x0.unique() == 1
    assert both(X, SIGMA).x0.unique() == 2
    with pytest.raises(ValueError, match="both sides"):
        both(X, torch.tensor([1.0, 2.0], dtype=torch.float64))


# Inpainting, on pairs of standard normals with a correlation: what is known tells about what is not.

RHO = 0.8


def correlated(x: Tensor, sigma: Tensor) -> Denoised:
    """The exact denoiser of N(0, [[1, rho], [rho, 1]]): S (S + sigma²)^-1 x."""
    covariance = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64)
    s = sigma.double()[:, None, None] ** 2 * torch.eye(2, dtype=torch.float64)
    gain = torch.linalg.solve(covariance + s, covariance.expand_as(s))
    return Denoised((gain.mT @ x.double()[..., None]).squeeze(-1).to(x))


KNOWN, MASK = torch.tensor([[1.5, 0.0]]), torch.tensor([[1.0, 0.0]])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_pixels_come_back_exactly(sampler: str) -> None:
    noise, sigmas = Noise(range(50)), grids.karras(0.01, 20.0, 20)
    denoise = keep_known(correlated, KNOWN.expand(50, 2), MASK.expand(50, 2))
    x = sample(SAMPLERS[sampler](denoise, start(noise.normal(2), 20.0), sigmas, noise=noise))
    assert torch.equal(x[:, 0], torch.full((50,), 1.5))
    assert x[:, 1].std() > 0.2


def repainted(resamplings: int, jump: int = 1) -> Tensor:
    noise, sigmas = Noise(range(1000)), grids.karras(0.1, 10.0, 24)
    steps = repaint(
        correlated,
        start(noise.normal(2), 10.0),
        sigmas,
        KNOWN.expand(1000, 2),
        MASK.expand(1000, 2),
        noise=noise,
        resamplings=resamplings,
        jump=jump,
    )
    return sample(steps)


def test_repaint_approaches_the_conditional_distribution() -> None:
    """x2 given x1 is N(rho x1, 1 - rho²); more resampling comes nearer to it."""
    once, often, jumping = repainted(1), repainted(8), repainted(8, jump=4)
    assert torch.equal(often[:, 0], torch.full((1000,), 1.5))
    assert abs(once[:, 1].mean() - 1.5 * RHO) > 0.4
    for x in (often, jumping):
        assert abs(x[:, 1].mean() - 1.5 * RHO) < 0.17
        assert abs(x[:, 1].std() - math.sqrt(1 - RHO**2)) < 0.12


def test_repaint_draws_the_known_part_from_the_forward_process() -> None:
    """After every step the known part is N(known, sigma_next²)."""
    noise, sigmas = Noise(range(2000)), torch.tensor([8.0, 4.0, 1.0, 0.0], dtype=torch.float64)
    x, known, mask = start(noise.normal(2), 8.0), KNOWN.expand(2000, 2), MASK.expand(2000, 2)
    for step in repaint(correlated, x, sigmas, known, mask, noise=noise, resamplings=2):
        sigma_next = sigmas[step.i // 2 + 1].item()
        assert step.x[:, 0].std().item() == pytest.approx(sigma_next, rel=0.07)
        assert step.x[:, 0].mean().item() == pytest.approx(1.5, abs=0.1 * sigma_next)


def test_repaint_counts_its_steps() -> None:
    noise = Noise([1, 2])
    x, known, mask = torch.zeros(2, 2), KNOWN.expand(2, 2), MASK.expand(2, 2)
    steps = list(
        repaint(correlated, x, grids.karras(0.1, 9.0, 7), known, mask, noise=noise, resamplings=3, jump=2)
    )
    assert [step.i for step in steps] == list(range(21))
    with pytest.raises(ValueError, match="at least 1"):
        next(repaint(correlated, x, grids.karras(0.1, 9.0, 7), known, mask, noise=noise, resamplings=0))
