"""Pictures after a caption that start from a picture instead of from noise (SDEdit, arXiv 2108.01073)."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.paths import noised, truncate
from unclip.generate.enlarge import enlarge, enlarge_steps
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo
from unclip.generate.settings import Settings
from unclip.generate.sources import PictureLike, Source, read_source
from unclip.generate.stages import decoder_condition, decoder_denoiser, walk
from unclip.generate.system import System
from unclip.generate.text_to_image import check_size
from unclip.generate.wishes import Wish, draw_wishes
from unclip.rng import Noise

STRENGTH = 0.7


def redraw(
    system: System,
    picture: PictureLike,
    prompt: str,
    *,
    settings: Settings,
    strength: float = STRENGTH,
    n: int = 1,
    seed: int | None = None,
    size: int | None = None,
    negative: str | None = None,
    callback: Callback | None = None,
) -> Iterator[Picture]:
    """`System.redraw`, yielding pictures as they are finished."""
    source = read_source(picture)
    size = check_size(system, size)
    grid = truncate(system.decoder.config.process.build().grid(settings.steps), strength)

    def draw(wish: Wish, seed: int, reporter: Reporter, first: int) -> Float[Tensor, "3 h w"]:
        return _draw(system, source, wish, grid, seed, settings, size, reporter, first)

    return draw_wishes(
        system,
        "redraw",
        prompt,
        draw,
        steps=len(grid) - 1 + enlarge_steps(system, settings, size),
        settings=settings,
        sources=[source],
        size=size,
        n=n,
        seed=seed,
        negative=negative,
        callback=callback,
        strength=strength,
    )


@torch.no_grad()
def _draw(
    system: System,
    source: Source,
    wish: Wish,
    grid: Float[Tensor, " levels"],
    seed: int,
    settings: Settings,
    size: int,
    reporter: Reporter,
    first: int,
) -> Float[Tensor, "3 h w"]:
    decoder = system.decoder
    noise = Noise([seed]).fork("decoder")
    x0 = source.square(decoder.config.size)[None].to(system.device)
    with system.precision(decoder):
        denoise = decoder_denoiser(
            decoder,
            decoder_condition(decoder, wish.z_i, wish.tokens),
            guidance=settings.guidance,
            interval=settings.guidance_interval,
            negative=wish.negative,
        )
        x = noised(x0, grid[0], noise)
        sampler = walk(settings.sampler, denoise, x, grid, noise, decoder.config.process.build())
        small = reporter.follow(sampler, "decoder", len(grid) - 1, first)
    return enlarge(system, small, [seed], size, settings, reporter, first)[0]


def again(redo: Redo) -> Picture:
    """A redrawn picture made again from its recipe."""
    (source,) = redo.sources()
    made = redraw(
        redo.system,
        source.image,
        redo.told("prompt"),
        strength=redo.told("strength"),
        size=redo.told("size"),
        negative=redo.recipe.get("negative"),
        **redo.common,
    )
    return next(made)
