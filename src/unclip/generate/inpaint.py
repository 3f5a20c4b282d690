"""Edits: a part of a picture drawn anew after a caption, all other pixels kept to the bit.

The decoder sees the kept part at its own size, as its inpainting inputs where it has them (GLIDE, section 2.4), else by
RePaint. What it draws is enlarged, brought to the kept pixels' colours near the border, and put into the hole.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from unclip.diffusion.denoiser import Step
from unclip.diffusion.inpainting import keep_known, repaint
from unclip.diffusion.paths import start
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import recipe_of
from unclip.generate.settings import Settings, check_seed, seed_of
from unclip.generate.sources import PictureLike, Source, read_source, read_sources
from unclip.generate.stages import decode, decoder_condition, decoder_denoiser, read_captions, warn_if_cut
from unclip.generate.system import System
from unclip.generate.text_to_image import check_count, embed, enlarge, prior_steps
from unclip.images.tensors import to_image, to_tensor
from unclip.rng import Noise, draw_seed

RESAMPLINGS = 5
"""How often RePaint walks each step, for decoders that were not trained to inpaint."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are the first ones outside."""


class Window(NamedTuple):
    """A square of a picture; where it reaches over the border, there is nothing."""

    left: int
    top: int
    side: int

    def cut(self, pixels: Float[Tensor, "c h w"], fill: float = 0.0) -> Float[Tensor, "c s s"]:
        """The square's pixels, `fill` beyond the border."""
        height, width = pixels.shape[-2:]
        beyond = (-self.left, self.left + self.side - width, -self.top, self.top + self.side - height)
        return F.pad(pixels, beyond, value=fill)

    def paste(
        self, square: Float[Tensor, "c s s"], into: Float[Tensor, "c h w"], where: Bool[Tensor, "h w"]
    ) -> Float[Tensor, "c h w"]:
        """`into` with the square's pixels where `where` is True within the square."""
        height, width = into.shape[-2:]
        around = (self.left, width - self.left - self.side, self.top, height - self.top - self.side)
        placed = F.pad(square, around)
        inside = torch.zeros_like(where)
        inside[max(self.top, 0) : self.top + self.side, max(self.left, 0) : self.left + self.side] = True
        return torch.where(where & inside, placed, into)


class Wish(NamedTuple):
    """What is to be drawn: z_i or nothing, caption tokens or none, what to lead away from."""

    z_i: Float[Tensor, "1 d"] | None
    tokens: Int[Tensor, "1 n"] | None
    negative: Int[Tensor, "1 n"] | None


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
    if not prompt.strip():
        raise ValueError("the prompt is empty: say what the whole picture is to show")
    source = read_source(picture)
    hole, mask_source, told = read_hole(source, mask)
    count = check_count(n)
    seed = draw_seed() if seed is None else check_seed(seed)
    negative = negative if negative and negative.strip() else None
    warn_if_cut(system.tokenizer, [prompt, negative or ""])
    window = window_of(hole)
    steps = prior_steps(system, settings) + fill_steps(system, settings, window.side)
    reporter = Reporter(callback, steps * count, count)
    pixels = to_tensor(source.image)
    sources = [source] if mask_source is None else [source, mask_source]

    def draw_all() -> Iterator[Picture]:
        for index in range(count):
            own = seed_of(seed, index)
            wish = read_wish(system, prompt, negative, own, settings, reporter, index)
            drawn = fill(system, pixels, hole, window, wish, own, settings, reporter, index)
            recipe = recipe_of(
                system,
                "edit",
                seed=own,
                size=source.image.size,
                settings=settings,
                sources=sources,
                prior=True,
                prompt=prompt,
                negative=negative,
                **told,
            )
            yield picture_of(drawn, wish, recipe)

    return draw_all()


def picture_of(pixels: Float[Tensor, "3 h w"], wish: Wish, recipe: dict[str, Any]) -> Picture:
    """A finished picture with what it was drawn from."""
    z_i = None if wish.z_i is None else wish.z_i[0].float().cpu()
    return Picture(image=to_image(pixels), recipe=recipe, embedding=z_i)


def read_hole(
    source: Source, mask: PictureLike | Box | None
) -> tuple[Bool[Tensor, "h w"], Source | None, dict[str, Any]]:
    """Which pixels are to be drawn anew; the mask's own picture, if it is one; and what the recipe tells of it.

    None takes the picture's own transparent pixels (alpha 0). In a mask, transparent pixels are drawn anew, or white
    ones if none is. Raises `ValueError` for a mask of another size, a box outside of the picture, and a hole of nothing.
    """
    width, height = source.image.size
    if isinstance(mask, tuple):
        left, top, right, bottom = mask
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(
                f"the box {left},{top},{right},{bottom} does not lie in the picture of {width}x{height}: give "
                "left,top,right,bottom in pixels"
            )
        hole = torch.zeros(height, width, dtype=torch.bool)
        hole[top:bottom, left:right] = True
        return hole, None, {"box": list(mask)}
    given = source if mask is None else read_source(mask)
    if given.image.size != source.image.size:
        raise ValueError(
            f"the mask is {given.image.width}x{given.image.height} and the picture {width}x{height}: make them the same"
        )
    hole = _transparent(given)
    if mask is not None and not hole.any():
        hole = to_tensor(given.image).mean(0) > 0
    if not hole.any():
        raise ValueError(
            "the picture has no transparent pixels: make those transparent that are to be drawn anew, or give a mask or a box"
            if mask is None
            else "the mask leaves nothing to draw: make white, or transparent, what is to be drawn anew"
        )
    return hole, None if mask is None else given, {}


def _transparent(source: Source) -> Bool[Tensor, "h w"]:
    width, height = source.image.size
    if source.image.mode != "RGBA":
        return torch.zeros(height, width, dtype=torch.bool)
    alpha = source.image.getchannel("A")
    return torch.frombuffer(bytearray(alpha.tobytes()), dtype=torch.uint8).reshape(height, width) == 0


def window_of(hole: Bool[Tensor, "h w"]) -> Window:
    """The square that is handed to the decoder: the picture's largest around the hole, or one around all of the picture
    where the hole is longer than that."""
    height, width = hole.shape
    rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    side = min(height, width)
    if max(bottom - top, right - left) > side:
        side = max(height, width)
        return Window((width - side) // 2, (height - side) // 2, side)
    middle_x, middle_y = (left + right - side) // 2, (top + bottom - side) // 2
    return Window(min(max(middle_x, 0), width - side), min(max(middle_y, 0), height - side), side)


@torch.no_grad()
def read_wish(
    system: System,
    prompt: str,
    negative: str | None,
    seed: int,
    settings: Settings,
    reporter: Reporter,
    first: int = 0,
) -> Wish:
    """The captions as tokens, and z_i from the prior."""
    captions = read_captions(system.clip, system.tokenizer, [prompt], system.device)
    away = (
        None if negative is None else read_captions(system.clip, system.tokenizer, [negative], system.device)
    )
    z_i = embed(system, captions, [seed], settings, reporter, first, away)
    return Wish(z_i, captions.tokens, None if away is None else away.tokens)


def fill_steps(system: System, settings: Settings, side: int) -> int:
    """The sampling steps of one `fill`."""
    walks = 1 if system.decoder.config.inpainting else RESAMPLINGS
    return settings.steps * walks + settings.upsampler_steps * system.sizes.index(_size_for(system, side))


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
) -> Float[Tensor, "3 h w"]:
    """A picture in [-1, 1] with its hole, as far as it lies in the window, drawn after the wish; the rest as it was."""
    square = window.cut(pixels)
    known = 1 - window.cut(hole[None].float(), fill=1.0)
    size = system.decoder.config.size
    # A small pixel is known if all that it covers is; so nothing of the hole shines through.
    low_known = 1 - F.adaptive_max_pool2d(1 - known, size)[None].to(system.device)
    low = _shrink(square[None], size).to(system.device)
    small = _fill_small(system, low, low_known, wish, seed, settings, reporter, first)
    large = enlarge(system, small, [seed], _size_for(system, window.side), settings, reporter, first).cpu()
    if large.shape[-1] != window.side:
        large = F.interpolate(large, size=window.side, mode="bicubic", antialias=True, align_corners=False)
    matched = match_border(large[0], square, known[0] > 0, reach=max(2, round(2 * window.side / size)))
    return window.paste(matched.clamp(-1, 1), pixels, hole)


def _fill_small(
    system: System,
    low: Float[Tensor, "1 3 s s"],
    known: Float[Tensor, "1 1 s s"],
    wish: Wish,
    seed: int,
    settings: Settings,
    reporter: Reporter,
    first: int,
) -> Float[Tensor, "1 3 s s"]:
    decoder = system.decoder
    inpainting = decoder.config.inpainting
    hint = torch.cat([low * known, known], dim=1) if inpainting else None
    with system.precision(decoder):
        denoise = decoder_denoiser(
            decoder,
            decoder_condition(decoder, wish.z_i, wish.tokens, hint),
            guidance=settings.guidance,
            interval=settings.guidance_interval,
            negative=wish.negative,
        )
        sampler: Iterator[Step]
        if inpainting:
            sampler = decode(
                decoder,
                keep_known(denoise, low, known),
                [seed],
                steps=settings.steps,
                sampler=settings.sampler,
                device=system.device,
            )
            total = settings.steps
        else:
            noise = Noise([seed]).fork("decoder")
            grid = decoder.config.process.build().grid(settings.steps)
            x = start(noise.normal(*low.shape[1:]), grid[0]).to(system.device)
            sampler = repaint(denoise, x, grid, low, known, noise=noise, resamplings=RESAMPLINGS)
            total = settings.steps * RESAMPLINGS
        drawn = reporter.follow(sampler, "decoder", total, first)
    return torch.lerp(drawn, low, known)


def match_border(
    drawn: Float[Tensor, "3 h w"], kept: Float[Tensor, "3 h w"], known: Bool[Tensor, "h w"], reach: int
) -> Float[Tensor, "3 h w"]:
    """What was drawn, brought to the colours of the kept pixels near the border, and less the further away.

    The difference of the two over the known pixels is carried into the hole by averages of about `reach` pixels, the
    way that seamless cloning carries it by a membrane (Pérez et al. 2003).
    """
    weight = known.to(drawn)[None]
    near = _blur(weight, reach)
    carried = _blur((kept - drawn) * weight, reach) / near.clamp(min=1e-6)
    # At a straight border half of the pixels around are known.
    return drawn + carried * (2 * near).clamp(max=1.0)


def _blur(x: Float[Tensor, "c h w"], reach: int) -> Float[Tensor, "c h w"]:
    """Three box averages in each direction, nearly a Gaussian; beyond the border lies nothing."""
    width = 2 * max(1, reach // 2) + 1
    x = rearrange(x, "c h w -> c 1 h w")
    for kernel in ((width, 1), (1, width)):
        for _ in range(3):
            x = F.avg_pool2d(x, kernel, stride=1, padding=(kernel[0] // 2, kernel[1] // 2))
    return rearrange(x, "c 1 h w -> c h w")


def _shrink(pixels: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c s s"]:
    if pixels.shape[-1] >= size:
        return F.adaptive_avg_pool2d(pixels, size)
    return F.interpolate(pixels, size=size, mode="bicubic", align_corners=False).clamp(-1, 1)


def _size_for(system: System, side: int) -> int:
    """The size in which to draw a square: no larger than needed, and what the model has."""
    return next((size for size in system.sizes if size >= side), system.sizes[-1])


def again(
    system: System,
    recipe: Mapping[str, Any],
    sources: Sequence[PictureLike],
    settings: Settings,
    callback: Callback | None,
) -> Picture:
    """An edit made again from its recipe."""
    source, *masks = read_sources(recipe, sources, [1, 2])
    box = recipe.get("box")
    mask = tuple(box) if box else masks[0].image if masks else None
    made = edit(
        system,
        source.image,
        mask,
        recipe["prompt"],
        settings=settings,
        seed=recipe["seed"],
        negative=recipe.get("negative"),
        callback=callback,
    )
    return next(made)
