"""Pictures from image embeddings: the decoder and the upsamplers alone, from chosen noise or from a seed's."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.paths import start
from unclip.diffusion.samplers import ddim
from unclip.generate.enlarge import enlarge, enlarge_steps
from unclip.generate.inversion import inversion_grid, path_steps
from unclip.generate.picture import Picture
from unclip.generate.progress import Reporter
from unclip.generate.settings import Settings
from unclip.generate.stages import Seeds, decode, decoder_condition, decoder_denoiser, seeds_of
from unclip.generate.system import System
from unclip.images.tensors import to_image
from unclip.rng import Noise


class Drawing(NamedTuple):
    """One picture that is to be drawn from z_i; `x_T` None is drawn from the seed."""

    z_i: Float[Tensor, " d"]
    x_T: Float[Tensor, "3 s s"] | None
    seed: int
    recipe: dict[str, Any]


def steps_of(system: System, settings: Settings, size: int, *, inverted: bool = False) -> int:
    """Sampling steps of decoder and upsamplers to a picture of `size`, from noise or from an inversion's x_T."""
    steps = path_steps(system, settings) if inverted else settings.steps
    return steps + enlarge_steps(system, settings, size)


def draw_each(
    system: System,
    drawings: Sequence[Drawing],
    settings: Settings,
    size: int,
    reporter: Reporter,
    *,
    eta: float = 0.0,
    together: int = 1,
) -> Iterator[Picture]:
    """Draw pictures, `together` at a time. Those with an x_T are sampled by DDIM with `eta`, others as `settings` say."""
    for first in range(0, len(drawings), together):
        batch = drawings[first : first + together]
        seeds = seeds_of([drawing.seed for drawing in batch], settings)
        small = decode_drawings(system, batch, settings, reporter, first, eta=eta, seeds=seeds)
        yield from finish(system, batch, small, settings, size, reporter, first, seeds=seeds)


@torch.no_grad()
def decode_drawings(
    system: System,
    drawings: Sequence[Drawing],
    settings: Settings,
    reporter: Reporter,
    first: int = 0,
    *,
    eta: float = 0.0,
    seeds: Seeds | None = None,
) -> Float[Tensor, "b 3 s s"]:
    """The decoder's small pictures of drawings that all have an x_T, or all have none."""
    decoder, own = system.decoder, [drawing.seed for drawing in drawings]
    embedding = torch.stack([drawing.z_i for drawing in drawings]).to(system.device)
    given = [drawing.x_T for drawing in drawings if drawing.x_T is not None]
    with system.precision(decoder):
        denoise = decoder_denoiser(
            decoder,
            decoder_condition(decoder, embedding, None),
            guidance=settings.guidance,
            interval=settings.guidance_interval,
        )
        if given:
            grid = inversion_grid(decoder.config.process.build(), settings.steps)
            x = start(torch.stack(given).to(system.device), grid[0])
            sampler = ddim(denoise, x, grid, noise=Noise(own).fork("decoder"), eta=eta)
        else:
            sampler = decode(
                decoder,
                denoise,
                own if seeds is None else seeds,
                steps=settings.steps,
                sampler=settings.sampler,
                device=system.device,
            )
        total = steps_of(system, settings, decoder.config.size, inverted=bool(given))
        return reporter.follow(sampler, "decoder", total, first)


@torch.no_grad()
def finish(
    system: System,
    drawings: Sequence[Drawing],
    small: Float[Tensor, "b 3 s s"],
    settings: Settings,
    size: int,
    reporter: Reporter,
    first: int = 0,
    *,
    seeds: Seeds | None = None,
) -> list[Picture]:
    """Small pictures enlarged to `size`, with their recipes. `seeds` are the drawings' own unless given."""
    own = [drawing.seed for drawing in drawings]
    pixels = enlarge(system, small, own if seeds is None else seeds, size, settings, reporter, first)
    return [
        Picture(image=to_image(one), recipe=drawing.recipe, embedding=drawing.z_i.float().cpu())
        for one, drawing in zip(pixels, drawings)
    ]
