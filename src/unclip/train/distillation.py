"""Distillation of a decoder: its guidance in one call of the network, and a few steps in place of many.

The network learns what a frozen copy of its first weights, the teacher, answers, in place of the pictures:

- under guidance, so that one call takes the place of two (Meng et al., arXiv 2210.03142, section 3.1, for one scale);
- after several of DDIM's steps, as if it had been one (Salimans and Ho, arXiv 2202.00512, section 3 and appendix G).
"""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import Denoiser, per_sample
from unclip.diffusion.losses import Density
from unclip.diffusion.parametrization import Process
from unclip.networks.decoder import Decoder, DecoderCondition
from unclip.stages.codec import Codec
from unclip.stages.renderer import decoder_renderer


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """What is learned from the teacher."""

    guidance: float = 2.0
    """Scale of the teacher's classifier-free guidance; the distilled decoder is sampled with guidance 1."""
    steps: int | None = None
    """Steps that the distilled decoder is sampled with, by DDIM on its usual grid; None: any sampler and number of steps."""
    substeps: int = 4
    """Steps of DDIM that the teacher takes for one of `steps`."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no distillation."""
        for name, least in (("guidance", 0), ("steps", 1), ("substeps", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value <= 1000:
                raise ValueError(f"distillation.{name} is {value}; it must be from {least} to 1000")
        if self.steps is None and self.guidance == 1:
            raise ValueError(
                "distillation.guidance is 1 and steps is None: then there is nothing to learn; set one of them"
            )


class Teacher:
    """A frozen decoder, and the clean estimates that a distilled one learns from it."""

    def __init__(self, network: Decoder, config: DistillationConfig, codec: Codec, digest: str):
        if config.steps is not None and network.config.process.parametrization == "eps":
            raise ValueError(
                "distillation.steps is for decoders that predict x0, v or a velocity: this one predicts eps, whose errors a step from "
                "the largest noise level multiplies; leave steps out"
            )
        self.config, self.hash = config, digest
        self.renderer = decoder_renderer(network.requires_grad_(False).eval(), codec)

    def sigma(
        self, u: Float[Tensor, " b"], density: Density, process: Process
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"] | None]:
        """The noise levels of uniform numbers `u`, and the ones that a step ends at; None where steps are not learned."""
        if self.config.steps is None:
            return density.sigma(u, process), None
        grid = self.renderer.grid(self.config.steps).to(u.device)
        index = (u * self.config.steps).long().clamp(max=self.config.steps - 1)
        return grid[index].double(), grid[index + 1].double()

    @torch.no_grad()
    def estimate(
        self,
        x: Float[Tensor, "b ..."],
        sigma: Float[Tensor, " b"],
        end: Float[Tensor, " b"] | None,
        condition: DecoderCondition,
    ) -> Float[Tensor, "b ..."]:
        """Clean estimate at `x` that leads, in one of DDIM's steps to `end`, to where the teacher's steps lead.

        Without `end`, the teacher's guided estimate.
        """
        denoise = self.renderer.denoiser(condition, guidance=self.config.guidance)
        if end is None:
            return denoise(x, sigma).x0
        y = walked(denoise, x, sigma, end, self.config.substeps)
        ratio = per_sample(end / sigma, x)
        return (y - ratio * x) / (1 - ratio)


def walked(
    denoise: Denoiser,
    x: Float[Tensor, "b ..."],
    sigma: Float[Tensor, " b"],
    end: Float[Tensor, " b"],
    steps: int,
) -> Float[Tensor, "b ..."]:
    """States at `end` after steps of DDIM from `sigma`, each sample with levels of its own, evenly spaced in the flow time."""
    first, last = (level / (1 + level) for level in (sigma, end))
    times = [torch.lerp(first, last, step / steps) for step in range(steps + 1)]
    levels = [sigma, *(time / (1 - time) for time in times[1:-1]), end]
    for here, after in itertools.pairwise(levels):
        x0 = denoise(x, here).x0
        x = x0 + per_sample(after / here, x) * (x - x0)
    return x
