"""Guidance: functions from denoisers to a denoiser. Clip outside guidance: ``clip(classifier_free(...))``.

For one noise level, the clean estimate is an affine function of eps, of v and of the score, so guidance of any of
them is guidance of x0, and every parametrisation shares these functions.
"""

import dataclasses
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import Denoised, Denoiser, per_sample
from unclip.diffusion.parametrization import Preconditioned


# Classifier-free guidance (arXiv 2207.12598), equation 6, where unCLIP's eps~ = (1 + w) eps(z, c) - w eps(z) is
# scale = 1 + w; the interval is arXiv 2404.07724's; rescaling is arXiv 2305.08891, equations 14 to 16.
def combine(
    cond: Denoised,
    null: Denoised,
    scale: float | Float[Tensor, " b"],
    rescale: float = 0.0,
) -> Denoised:
    """``null + scale * (cond - null)``, with the learned variance of the conditional half.

    A `rescale` of 1 brings the standard deviation of each sample back to that of the conditional estimate, 0 leaves
    it.
    """
    if isinstance(scale, Tensor):
        scale = per_sample(scale, cond.x0)
    x0 = null.x0 + scale * (cond.x0 - null.x0)
    if rescale > 0:
        ratio = cond.x0.flatten(1).std(1) / x0.flatten(1).std(1).clamp(min=1e-12)
        x0 = x0 * per_sample(1 + rescale * (ratio - 1), x0)
    return Denoised(x0, cond.var_frac)


def classifier_free(
    cond: Denoiser,
    null: Denoiser,
    scale: float | Float[Tensor, " b"],
    *,
    interval: tuple[float, float] = (0.0, math.inf),
    rescale: float = 0.0,
) -> Denoiser:
    """Guides `cond` away from `null` where sigma lies in ``(interval[0], interval[1]]``, and is `cond` elsewhere.

    A `scale` of 1 is no guidance; it may differ from sample to sample. `null` may be any weaker model: its condition
    dropped, or a smaller network (autoguidance, arXiv 2406.02507).
    """

    def denoise(x: Tensor, sigma: Tensor) -> Denoised:
        guided = _inside(sigma, interval)
        if not bool(guided.any()):
            return cond(x, sigma)
        return _where(guided, combine(answer := cond(x, sigma), null(x, sigma), scale, rescale), answer)

    return denoise


def classifier_free_batched(
    model: Preconditioned,
    condition: Any,
    null: Any,
    scale: float | Float[Tensor, " b"],
    *,
    interval: tuple[float, float] = (0.0, math.inf),
    rescale: float = 0.0,
    raw_rescale: float = 0.0,
) -> Denoiser:
    """`classifier_free` of one model under two conditions, in one forward pass of twice the batch.

    `raw_rescale` is the rescaling of `combine` with the deviations of what the network predicts (v, eps) in place of the
    clean estimates', as diffusers' `guidance_rescale` has it.
    """
    both = join_conditions(condition, null)

    def denoise(x: Tensor, sigma: Tensor) -> Denoised:
        guided = _inside(sigma, interval)
        if not bool(guided.any()):
            return model(x, sigma, condition)
        if raw_rescale > 0:
            raw = model.raw(torch.cat([x, x]), torch.cat([sigma, sigma]), both)
            cond = model.denoised(raw.chunk(2)[0], x, sigma)
            return _where(
                guided, model.denoised(_combined_raw(model, raw, scale, raw_rescale), x, sigma), cond
            )
        answer = model(torch.cat([x, x]), torch.cat([sigma, sigma]), both)
        first, second = answer.x0.chunk(2)
        var_frac = None if answer.var_frac is None else answer.var_frac.chunk(2)[0]
        cond = Denoised(first, var_frac)
        return _where(guided, combine(cond, Denoised(second), scale, rescale), cond)

    return denoise


def _combined_raw(
    model: Preconditioned, raw: Tensor, scale: float | Float[Tensor, " b"], rescale: float
) -> Tensor:
    """Guided prediction of a network from both halves of a batch, with the conditional half's learned variance."""
    (first, *variance), (second, *_) = (
        half.chunk(2, dim=1) if model.parametrization.learned_variance else (half,) for half in raw.chunk(2)
    )
    guided = combine(Denoised(first, None), Denoised(second, None), scale, rescale).x0
    return torch.cat([guided, *variance], dim=1)


def join_conditions(first: Any, second: Any) -> Any:
    """Two conditions of one type as one of twice the batch: dataclasses, tuples and dicts of tensors, or None.

    Raises ValueError where only one has a tensor, or for anything else that differs.
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    if type(first) is not type(second):
        raise ValueError(
            f"cannot join {type(first).__name__} with {type(second).__name__}: give both conditions both"
        )
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        joined = {
            field.name: join_conditions(getattr(first, field.name), getattr(second, field.name))
            for field in dataclasses.fields(first)
        }
        return dataclasses.replace(first, **joined)
    if isinstance(first, tuple):
        joined = [join_conditions(a, b) for a, b in zip(first, second, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
    if isinstance(first, dict):
        return {key: join_conditions(first[key], second[key]) for key in first}
    if first != second:
        raise ValueError(f"cannot join {first!r} with {second!r} in one batch")
    return first


def _inside(sigma: Tensor, interval: tuple[float, float]) -> Tensor:
    return (sigma > interval[0]) & (sigma <= interval[1])


def _where(guided: Tensor, inside: Denoised, outside: Denoised) -> Denoised:
    if bool(guided.all()):
        return inside
    mask = guided.reshape(-1, *(1,) * (inside.x0.ndim - 1)).to(inside.x0.device)
    return Denoised(torch.where(mask, inside.x0, outside.x0), inside.var_frac)


def clip(denoise: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """Clamps the clean estimate to the range of the data (DDPM's code)."""

    def clipped(x: Tensor, sigma: Tensor) -> Denoised:
        answer = denoise(x, sigma)
        return Denoised(answer.x0.clamp(low, high), answer.var_frac)

    return clipped


# Imagen (arXiv 2205.11487), section 2.3.
def dynamic_threshold(
    denoise: Denoiser, quantile: float = 0.995, limit: float = 1.0, largest: float | None = None
) -> Denoiser:
    """Clamps each estimate to the `quantile` of its absolute values, where that is above `limit`, and scales it back.

    The range is `largest` at most, if that is given.
    """

    def thresholded(x: Tensor, sigma: Tensor) -> Denoised:
        answer = denoise(x, sigma)
        # A sample at a time: torch.quantile takes at most 16 million elements.
        size = [torch.quantile(one.abs().flatten().float(), quantile) for one in answer.x0]
        s = per_sample(torch.stack(size).clamp(limit, largest), answer.x0)
        return Denoised(answer.x0.clamp(-s, s) * (limit / s), answer.var_frac)

    return thresholded


def switch(noisy: Denoiser, clean: Denoiser, threshold: float) -> Denoiser:
    """`noisy` above the noise level `threshold` and `clean` from there down, such as Karlo's network for the last step.

    Raises ValueError for a batch that lies on both sides.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Denoised:
        above = sigma > threshold
        if bool(above.all()):
            return noisy(x, sigma)
        if bool(above.any()):
            raise ValueError(
                f"a batch with noise levels on both sides of {threshold:g} cannot be switched as one"
            )
        return clean(x, sigma)

    return denoise
