"""Inpainting with any denoiser: known pixels are put back while the rest is sampled."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import Denoised, Denoiser, NoiseSource, Step, draw
from unclip.diffusion.posterior import Variance
from unclip.diffusion.samplers import ddpm


def keep_known(denoise: Denoiser, known: Float[Tensor, "b ..."], mask: Float[Tensor, "b ..."]) -> Denoiser:
    """Puts the known pixels into every clean estimate; `mask` is 1 where they are known, and broadcasts.

    Works with every sampler. Outside of the mask nothing is asked of the model to agree with them: `repaint` does.
    """

    def kept(x: Tensor, sigma: Tensor) -> Denoised:
        answer = denoise(x, sigma)
        return Denoised(torch.lerp(answer.x0, known.to(answer.x0), mask.to(answer.x0)), answer.var_frac)

    return kept


# Blended latent diffusion (arXiv 2206.02779), Algorithm 1, with one noise for the whole walk, as diffusers has it.
def blended(
    steps: Iterator[Step],
    sigmas: Float[Tensor, " n"],
    known: Float[Tensor, "b ..."],
    mask: Float[Tensor, "b ..."],
    z: Float[Tensor, "b ..."],
) -> Iterator[Step]:
    """Steps of any sampler whose known part is ``known + sigma z`` after each; `mask` is 1 where it is known.

    After the last step the known part is clean: at a last level above 0, in the scale that division by
    ``sqrt(1 + sigma²)`` brings to it.
    """
    levels = sigmas.tolist()
    for step in steps:
        last = step.i == len(levels) - 2
        level = levels[step.i + 1]
        anchor = known * (1 + level**2) ** 0.5 if last else known + level * z
        # In place: the sampler goes on from there.
        step.x.copy_(torch.lerp(step.x, anchor.to(step.x), mask.to(step.x)))
        yield step


# RePaint (arXiv 2201.09865), Algorithm 1, and the jumps of its appendix B.
def repaint(
    denoise: Denoiser,
    x: Float[Tensor, "b ..."],
    sigmas: Float[Tensor, " n"],
    known: Float[Tensor, "b ..."],
    mask: Float[Tensor, "b ..."],
    *,
    noise: NoiseSource,
    resamplings: int = 10,
    jump: int = 1,
    variance: Variance = "fixed_small",
) -> Iterator[Step]:
    """Ancestral sampling whose known part is drawn from q(x_t | known), going back up to let the two parts agree.

    Every `jump` steps are walked `resamplings` times, with the noise put back in between, which costs as many times the
    calls. `mask` is 1 where pixels are known. The steps are counted over all walks.
    """
    if resamplings < 1 or jump < 1:
        raise ValueError(f"resamplings ({resamplings}) and jump ({jump}) are at least 1")
    count = 0
    for start in range(0, len(sigmas) - 1, jump):
        block = sigmas[start : start + jump + 1]
        for walk in range(resamplings):
            if walk > 0:  # the forward process from the end of the block to its start
                x = x + (block[0].square() - block[-1].square()).sqrt().item() * draw(noise, x)
            for i in range(len(block) - 1):
                step = next(ddpm(denoise, x, block[i : i + 2], noise=noise, variance=variance))
                sigma_next = block[i + 1].item()
                anchor = known.to(x) + sigma_next * draw(noise, x) if sigma_next > 0 else known.to(x)
                x = torch.lerp(step.x, anchor, mask.to(x))
                yield Step(count, x, step.x0)
                count += 1
