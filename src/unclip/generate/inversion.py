"""A picture as the decoder's (z_i, x_T): its CLIP embedding, and the noise from which DDIM draws it (section 3)."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion import paths
from unclip.diffusion.parametrization import Process
from unclip.generate.progress import Callback, Reporter
from unclip.generate.settings import Knobs, Settings
from unclip.generate.sources import PictureLike, Source, embed_sources, read_source
from unclip.generate.stages import decoder_condition, decoder_denoiser
from unclip.generate.system import System

STEPS = 25
ITERATIONS = 2
"""Calls of the decoder for each step up: see `unclip.diffusion.paths.invert`."""
FLOOR = 0.1
"""The lowest noise level at which a decoder that predicts x0 is asked (see `inversion_grid`)."""


class Inversion(NamedTuple):
    """What the paper calls the bipartite latent: z_i says what CLIP sees, x_T holds all that is left.

    `x_T` has DDPM's units: it looks like a draw of N(0, I).
    """

    z_i: Float[Tensor, " d"]
    x_T: Float[Tensor, "3 s s"]


def inversion_settings(defaults: Settings, knobs: Knobs) -> Settings:
    """The settings for inverting and drawing again: DDIM, 25 steps, no guidance, unless given.

    Guidance makes the path harder to walk back: what is gained in vividness is lost in likeness. Raises `ValueError`
    for another sampler, because only DDIM can be walked backwards.
    """
    if knobs.get("sampler") not in (None, "ddim"):
        raise ValueError(
            f"sampler {knobs.get('sampler')!r} cannot be inverted: leave it out, or give 'ddim'"
        )
    return defaults.with_given(**{"steps": STEPS, "guidance": 1.0, **_given(knobs), "sampler": "ddim"})


def drawing_settings(defaults: Settings, knobs: Knobs, *, inverted: bool) -> Settings:
    """`inversion_settings` where pictures start from an inversion, else the model's own with those given."""
    return inversion_settings(defaults, knobs) if inverted else defaults.with_given(**knobs)


def _given(knobs: Knobs) -> Knobs:
    return {name: value for name, value in knobs.items() if value is not None}  # pyright: ignore[reportReturnType]


def inversion_grid(process: Process, steps: int) -> Float[Tensor, " levels"]:
    """The noise levels of the way up and down again.

    Where the network predicts x0, its error does not vanish with sigma, and what it misses of the picture is divided
    by the lowest sigma to become part of x_T. So its grid ends at `FLOOR`, which keeps x_T near N(0, I).
    """
    grid = process.grid(steps)
    if process.parametrization.name != "x0":
        return grid
    return torch.cat([grid[grid > FLOOR], grid.new_tensor([FLOOR, 0.0])])


def path_steps(system: System, settings: Settings) -> int:
    """The steps of one way, up or down."""
    return len(inversion_grid(system.decoder.config.process.build(), settings.steps)) - 1


def invert(
    system: System, picture: PictureLike, *, settings: Settings, callback: Callback | None = None
) -> Inversion:
    """`System.invert`."""
    reporter = Reporter(callback, path_steps(system, settings), 1)
    return invert_source(system, read_source(picture), settings, reporter)


@torch.no_grad()
def invert_source(
    system: System, source: Source, settings: Settings, reporter: Reporter, first: int = 0
) -> Inversion:
    """z_i by CLIP, then x_T by walking DDIM up from the picture under z_i; on the system's device."""
    z_i = embed_sources(system, [source])
    decoder = system.decoder
    grid = inversion_grid(decoder.config.process.build(), settings.steps)
    with system.precision(decoder):
        denoise = decoder_denoiser(
            decoder,
            decoder_condition(decoder, z_i, None),
            guidance=settings.guidance,
            interval=settings.guidance_interval,
        )
        x0 = source.square(decoder.config.size)[None].to(system.device)
        way = paths.invert(denoise, x0, grid, iterations=ITERATIONS)
        top = reporter.follow(way, "inversion", len(grid) - 1, first)
    return Inversion(z_i[0], paths.start_noise(top, grid[0])[0])


def psnr(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> float:
    """The peak signal-to-noise ratio in dB of pictures in [-1, 1], at most 100."""
    error = (a - b).double().square().mean().item()
    return min(100.0, 10 * math.log10(4 / error)) if error > 0 else 100.0
