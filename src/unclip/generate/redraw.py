"""Pictures after a caption that start from a picture instead of from noise (SDEdit, arXiv 2108.01073)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.paths import noised, truncate
from unclip.generate.inpaint import Wish, picture_of, read_wish
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import recipe_of
from unclip.generate.settings import Settings, check_seed, seed_of
from unclip.generate.sources import PictureLike, Source, read_source, read_sources
from unclip.generate.stages import decoder_condition, decoder_denoiser, walk, warn_if_cut
from unclip.generate.system import System
from unclip.generate.text_to_image import check_count, check_size, enlarge, prior_steps
from unclip.rng import Noise, draw_seed

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
    if not prompt.strip():
        raise ValueError("the prompt is empty: say what to draw")
    source = read_source(picture)
    grid = truncate(system.decoder.config.process.build().grid(settings.steps), strength)
    count = check_count(n)
    size = check_size(system, size)
    seed = draw_seed() if seed is None else check_seed(seed)
    negative = negative if negative and negative.strip() else None
    warn_if_cut(system.tokenizer, [prompt, negative or ""])
    steps = len(grid) - 1 + settings.upsampler_steps * system.sizes.index(size)
    steps += prior_steps(system, settings)
    reporter = Reporter(callback, steps * count, count)

    def draw_all() -> Iterator[Picture]:
        for index in range(count):
            own = seed_of(seed, index)
            wish = read_wish(system, prompt, negative, own, settings, reporter, index)
            pixels = _draw(system, source, wish, grid, own, settings, size, reporter, index)
            recipe = recipe_of(
                system,
                "redraw",
                seed=own,
                size=size,
                settings=settings,
                sources=[source],
                prior=True,
                prompt=prompt,
                negative=negative,
                strength=strength,
            )
            yield picture_of(pixels, wish, recipe)

    return draw_all()


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


def again(
    system: System,
    recipe: Mapping[str, Any],
    sources: Sequence[PictureLike],
    settings: Settings,
    callback: Callback | None,
) -> Picture:
    """A redrawn picture made again from its recipe."""
    (source,) = read_sources(recipe, sources, [1])
    made = redraw(
        system,
        source.image,
        recipe["prompt"],
        settings=settings,
        strength=recipe["strength"],
        seed=recipe["seed"],
        size=recipe["size"],
        negative=recipe.get("negative"),
        callback=callback,
    )
    return next(made)
