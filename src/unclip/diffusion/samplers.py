"""Samplers: generator functions that walk a state down a grid of noise levels.

    for step in ddim(denoise, x, sigmas): ...

Each takes a denoiser, the state at `sigmas[0]` and a descending grid, and yields a `Step` after every move; the last
one's `x` is the sample when the grid ends in 0. The caller shows progress and previews, may change `x` in place, and
cancels by dropping the iterator. Randomness is the argument `noise`: one stream per sample. Every update is written so that nothing of the
size of sigma cancels, because the cosine schedule starts at 20 thousand.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import Denoiser, NoiseSource, Step, draw, noise_level
from unclip.diffusion.names import SAMPLER_TABLE
from unclip.diffusion.posterior import Variance, posterior_mean, reverse_log_variance, variance_bounds


def _moves(sigmas: Float[Tensor, " n"]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(i, sigma, sigma_next) of every move of a grid; both are 0-dimensional float64."""
    sigmas = sigmas.double().cpu()
    if len(sigmas) < 2 or not bool((sigmas.diff() < 0).all()) or bool(sigmas[-1] < 0):
        raise ValueError(
            "a sampler needs a grid of two or more noise levels, strictly descending, none below 0"
        )
    for i in range(len(sigmas) - 1):
        yield i, sigmas[i], sigmas[i + 1]


# DDIM (arXiv 2010.02502), equations 12 and 16; with eta = 0 also Euler's method on EDM's equation 3.
def ddim(
    denoise: Denoiser,
    x: Float[Tensor, "b ..."],
    sigmas: Float[Tensor, " n"],
    *,
    noise: NoiseSource | None = None,
    eta: float = 0.0,
) -> Iterator[Step]:
    """DDIM. `eta` from 0 (deterministic, order 1) to 1 (DDPM with its smaller variance)."""
    for i, sigma, sigma_next in _moves(sigmas):
        x0 = denoise(x, noise_level(sigma, x)).x0
        up = eta * variance_bounds(sigma, sigma_next)[0].sqrt()
        down = (sigma_next.square() - up.square()).clamp(min=0).sqrt()
        x = x0 + (down / sigma).item() * (x - x0)
        if up > 0:
            x = x + up.item() * draw(noise, x)
        yield Step(i, x, x0)


# DDPM (arXiv 2006.11239), Algorithm 2: x_{t-1} = mean of q(x_{t-1} | x_t, x_0) at the estimate of x_0, plus noise.
def ddpm(
    denoise: Denoiser,
    x: Float[Tensor, "b ..."],
    sigmas: Float[Tensor, " n"],
    *,
    noise: NoiseSource | None = None,
    variance: Variance | None = None,
) -> Iterator[Step]:
    """DDPM. `variance` is "fixed_small" (beta tilde), "fixed_large" (beta), "learned", or a function of both sigmas.

    None takes the learned variance of a model that has one, else "fixed_small".
    """
    for i, sigma, sigma_next in _moves(sigmas):
        denoised = denoise(x, noise_level(sigma, x))
        if sigma_next > 0:
            chosen = variance or ("fixed_small" if denoised.var_frac is None else "learned")
            log_variance = reverse_log_variance(chosen, denoised, sigma, sigma_next)
            mean = posterior_mean(x, denoised.x0, sigma, sigma_next)
            x = mean + (0.5 * log_variance).exp() * draw(noise, x)
        else:
            x = denoised.x0
        yield Step(i, x, denoised.x0)


# EDM (arXiv 2206.00364), Algorithm 2. Line 8's average of two slopes is Euler's result plus a multiple of the change
# of x0: x + (s' - s)(d + d')/2 = ddim + (s - s')/(2 s') (x0' - x0).
def heun(
    denoise: Denoiser,
    x: Float[Tensor, "b ..."],
    sigmas: Float[Tensor, " n"],
    *,
    noise: NoiseSource | None = None,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    churn_noise: float = 1.0,
) -> Iterator[Step]:
    """EDM's sampler, order 2, two calls a step but for the last. The churns are its S_churn, S_tmin, S_tmax, S_noise.

    It wants a Karras grid: the correction of a step is multiplied by ``sigma / (2 sigma_next)``, which a respaced cosine
    table makes thousands in its first step.
    """
    gamma = min(churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    for i, sigma, sigma_next in _moves(sigmas):
        if gamma > 0 and churn_min <= sigma <= churn_max:
            raised = sigma * (1 + gamma)
            x = x + (raised.square() - sigma.square()).sqrt().item() * churn_noise * draw(noise, x)
            sigma = raised
        x0 = denoise(x, noise_level(sigma, x)).x0
        x = x0 + (sigma_next / sigma).item() * (x - x0)
        if sigma_next > 0:
            corrected = denoise(x, noise_level(sigma_next, x)).x0
            x = x + ((sigma - sigma_next) / (2 * sigma_next)).item() * (corrected - x0)
        yield Step(i, x, x0)


# DPM-Solver++ (arXiv 2211.01095), Algorithm 2.
def dpmpp_2m(
    denoise: Denoiser,
    x: Float[Tensor, "b ..."],
    sigmas: Float[Tensor, " n"],
    *,
    noise: NoiseSource | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M): order 2, one call a step, deterministic."""
    yield from dpmpp_2m_sde(denoise, x, sigmas, noise=noise, eta=0.0)


# DPM-Solver++, SDE-DPM-Solver++(2M) of appendix B; lambda = -log sigma, h its increase.
def dpmpp_2m_sde(
    denoise: Denoiser,
    x: Float[Tensor, "b ..."],
    sigmas: Float[Tensor, " n"],
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M): the stochastic form; `eta` scales its noise, and 0 makes it `dpmpp_2m`."""
    previous: Tensor | None = None
    h_previous = 0.0
    for i, sigma, sigma_next in _moves(sigmas):
        x0 = denoise(x, noise_level(sigma, x)).x0
        if sigma_next == 0:
            x = x0
        else:
            h = (sigma / sigma_next).log().item()
            # The straight line through the last two estimates, at the middle of the step.
            middle = x0 if previous is None else x0 + h / (2 * h_previous) * (x0 - previous)
            x = middle + math.exp(-h * (1 + eta)) * (x - middle)
            if eta > 0:
                x = x + sigma_next.item() * math.sqrt(-math.expm1(-2 * eta * h)) * draw(noise, x)
            previous, h_previous = x0, h
        yield Step(i, x, x0)


# Karras et al. 2022, Algorithm 1 without its stochastic part, is `ddim`; with as much noise as DDPM adds, eta is 1.
def euler_ancestral(
    denoise: Denoiser,
    x: Float[Tensor, "b ..."],
    sigmas: Float[Tensor, " n"],
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
) -> Iterator[Step]:
    """Euler's method to a level below, and noise up to the level; `eta` scales the noise, and 1 equals DDPM."""
    yield from ddim(denoise, x, sigmas, noise=noise, eta=eta)


# Pseudo numerical methods (arXiv 2202.09778), equations 12 and 13, in sigma: eps is the slope of x. The first step is
# Heun's; its second slope is not kept, so that the next steps have the older ones at whole steps.
_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def plms(
    denoise: Denoiser,
    x: Float[Tensor, "b ..."],
    sigmas: Float[Tensor, " n"],
    *,
    noise: NoiseSource | None = None,
    mixed: Literal["eps", "v"] = "eps",
) -> Iterator[Step]:
    """PNDM's linear multistep method, Stable Diffusion 1's sampler: one call a step, and one more in the first.

    `mixed` is what is combined over the steps: the slopes, or v, as diffusers does for networks that predict it.

    A step to 0 takes the clean estimate. It is made for tables whose largest sigma is about 15: slopes of the cosine schedule's 20 thousand lose digits.
    """
    answers: list[Tensor] = []
    for i, sigma, sigma_next in _moves(sigmas):
        x0 = denoise(x, noise_level(sigma, x)).x0
        if sigma_next == 0:
            yield Step(i, x0, x0)
            return
        answers = [_answer(x, x0, sigma.item(), mixed), *answers[:3]]
        move = (sigma_next - sigma).item()
        if i == 0:
            trial = x + move * (x - x0) / sigma.item()
            beyond = denoise(trial, noise_level(sigma_next, x)).x0
            mean = (answers[0] + _answer(trial, beyond, sigma_next.item(), mixed)) / 2
        else:
            weights = _ADAMS_BASHFORTH[len(answers) - 1]
            mean = sum((weight * one for weight, one in zip(weights, answers)), torch.zeros_like(x))
        x = x + move * _slope(x, mean, sigma.item(), mixed)
        yield Step(i, x, x0)


# With alpha = 1 / sqrt(1 + sigma²): v = alpha eps - alpha sigma x0 (arXiv 2202.00512, section 4), and so
# eps = alpha v + alpha² sigma x.
def _answer(x: Tensor, x0: Tensor, sigma: float, mixed: str) -> Tensor:
    eps = (x - x0) / sigma
    return eps if mixed == "eps" else (eps - sigma * x0) / math.sqrt(1 + sigma**2)


def _slope(x: Tensor, answer: Tensor, sigma: float, mixed: str) -> Tensor:
    return answer if mixed == "eps" else answer / math.sqrt(1 + sigma**2) + sigma / (1 + sigma**2) * x


_FUNCTIONS: dict[str, Callable[..., Iterator[Step]]] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "euler": ddim,
    "euler_ancestral": euler_ancestral,
    "plms": plms,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
}


@dataclass(frozen=True)
class Sampler:
    """A sampler function with its properties; call it like the function."""

    function: Callable[..., Iterator[Step]]
    order: int
    calls: int
    stochastic: bool

    def __call__(self, *arguments: Any, **options: Any) -> Iterator[Step]:
        """Steps of the sampler function."""
        return self.function(*arguments, **options)


SAMPLERS: dict[str, Sampler] = {
    name: Sampler(_FUNCTIONS[name], info.order, info.calls, info.stochastic)
    for name, info in SAMPLER_TABLE.items()
}


@torch.no_grad()
def sample(steps: Iterator[Step]) -> Tensor:
    """The last state of a sampler, for callers that want no progress."""
    x = None
    for step in steps:
        x = step.x
    if x is None:
        raise ValueError("the sampler made no step")
    return x
