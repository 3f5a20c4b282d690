"""Edits: a part of a picture drawn anew after a caption, all other pixels kept to the bit.

The decoder sees the kept part at its own size, as its inpainting inputs where it has them (GLIDE, section 2.4), else by
RePaint; what it draws is brought to the colours around it. The upsamplers go on from the kept pixels at their sizes, and
only what lies in the hole is put back.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from unclip.diffusion.denoiser import Step
from unclip.diffusion.inpainting import repaint
from unclip.diffusion.paths import noised, start, truncate
from unclip.generate.enlarge import enlarge, enlarge_steps
from unclip.generate.holes import Box, Window, read_hole, window_of
from unclip.generate.known import Known, match_border
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo
from unclip.generate.settings import Settings
from unclip.generate.sources import PictureLike, read_source
from unclip.generate.stages import decoder_condition, decoder_denoiser, walk
from unclip.generate.system import System
from unclip.generate.wishes import Wish, draw_wishes
from unclip.images.tensors import to_tensor
from unclip.rng import Noise

DRAFT_STRENGTH = 0.4
"""How much of the way down is walked from a draft: what lies in it stays where it is, and gets the sharpness of its size.

With more, neighbouring squares that are drawn over one draft no longer agree."""
RESAMPLINGS = 5
"""How often RePaint walks each step, for decoders that were not trained to inpaint."""
REACH = 1 / 8
"""How far inside its border a filled hole is brought to the colours around it, as a share of the square's side.

Farther, an edit that gives a thing another colour would be undone; nearer, the border shows.
"""
TOUCH = 1 / 32
"""The same once more after it was enlarged."""


def edit(
    system: System,
    picture: PictureLike,
    mask: PictureLike | Box | None,
    prompt: str,
    *,
    settings: Settings,
    n: int = 1,
    seed: int | None = None,
    negative: str | None = None,
    callback: Callback | None = None,
) -> Iterator[Picture]:
    """`System.edit`, yielding pictures as they are finished."""
    source = read_source(picture)
    hole, mask_source, told = read_hole(source, mask)
    window, pixels = window_of(hole), to_tensor(source.image)
    size = size_for(system, window.side)

    def draw(wish: Wish, seed: int, reporter: Reporter, first: int) -> Float[Tensor, "3 h w"]:
        return fill(system, pixels, hole, window, wish, seed, settings, reporter, first, size=size)

    return draw_wishes(
        system,
        "edit",
        prompt,
        draw,
        steps=fill_steps(system, settings, size),
        settings=settings,
        sources=[source] if mask_source is None else [source, mask_source],
        size=source.image.size,
        n=n,
        seed=seed,
        negative=negative,
        callback=callback,
        **told,
    )


def fill_steps(system: System, settings: Settings, size: int, *, drafted: bool = False) -> int:
    """The sampling steps of one `fill` at `size`, with a draft or without."""
    walks = 1 if system.decoder.config.inpainting else RESAMPLINGS
    levels = _levels(system, settings, drafted=drafted)
    return (len(levels) - 1) * walks + enlarge_steps(system, settings, size)


def size_for(system: System, side: int) -> int:
    """The size in which to draw a square: no larger than needed, and what the model has."""
    return next((size for size in system.sizes if size >= side), system.sizes[-1])


@torch.no_grad()
def fill(
    system: System,
    pixels: Float[Tensor, "3 h w"],
    hole: Bool[Tensor, "h w"],
    window: Window,
    wish: Wish,
    seed: int,
    settings: Settings,
    reporter: Reporter,
    first: int = 0,
    *,
    size: int,
    draft: Float[Tensor, "3 s s"] | None = None,
) -> Float[Tensor, "3 h w"]:
    """A picture in [-1, 1] with its hole, as far as it lies in the window, drawn after the wish; the rest as it was.

    The window is drawn at `size` and brought to its own. A `draft` of it is what the drawing starts from, with noise
    added, instead of from noise alone.
    """
    known = Known(window.cut(pixels)[None], 1 - window.cut(hole[None].float(), fill=1.0)[None])
    small = _fill_small(system, known, draft, wish, seed, settings, reporter, first)
    anchor = known.at(size).to(system.device)
    large = enlarge(system, small, [seed], size, settings, reporter, first, known=anchor).cpu()
    if size != window.side:
        large = F.interpolate(large, size=window.side, mode="bicubic", antialias=True, align_corners=False)
    matched = match_border(large, known, reach=TOUCH * window.side)
    return window.paste(matched[0].clamp(-1, 1), pixels, hole)


def _fill_small(
    system: System,
    known: Known,
    draft: Float[Tensor, "3 s s"] | None,
    wish: Wish,
    seed: int,
    settings: Settings,
    reporter: Reporter,
    first: int,
) -> Float[Tensor, "1 3 h w"]:
    decoder = system.decoder
    config = decoder.config
    known = known.at(config.size).to(system.device)
    hint = torch.cat([known.pixels * known.mask, known.mask], dim=1) if config.inpainting else None
    levels = _levels(system, settings, drafted=draft is not None)
    noise = Noise([seed]).fork("decoder")
    if draft is None:
        x = start(noise.normal(*known.pixels.shape[1:]), levels[0]).to(system.device)
    else:
        begun = F.interpolate(
            draft[None], size=config.size, mode="bicubic", antialias=True, align_corners=False
        )
        x = noised(begun.clamp(-1, 1).to(system.device), levels[0], noise)
    with system.precision(decoder):
        denoise = decoder_denoiser(
            decoder,
            decoder_condition(decoder, wish.z_i, wish.tokens, hint),
            guidance=settings.guidance,
            interval=settings.guidance_interval,
            negative=wish.negative,
        )
        sampler: Iterator[Step]
        if config.inpainting:
            kept = known.kept_until_last(denoise, levels)
            sampler = walk(settings.sampler, kept, x, levels, noise, config.process.build())
            total = len(levels) - 1
        else:
            sampler = repaint(
                denoise, x, levels, known.pixels, known.mask, noise=noise, resamplings=RESAMPLINGS
            )
            total = (len(levels) - 1) * RESAMPLINGS
        drawn = reporter.follow(sampler, "decoder", total, first)
    matched = match_border(drawn, known, reach=REACH * config.size)
    return torch.lerp(matched, known.pixels, known.mask)


def _levels(system: System, settings: Settings, *, drafted: bool) -> Float[Tensor, " levels"]:
    levels = system.decoder.config.process.build().grid(settings.steps)
    return truncate(levels, DRAFT_STRENGTH) if drafted else levels


def again(redo: Redo) -> Picture:
    """An edit made again from its recipe."""
    source, *masks = redo.sources([1, 2])
    box = redo.recipe.get("box")
    mask = tuple(box) if box else masks[0].image if masks else None
    made = edit(
        redo.system,
        source.image,
        mask,
        redo.told("prompt"),
        negative=redo.recipe.get("negative"),
        **redo.common,
    )
    return next(made)
