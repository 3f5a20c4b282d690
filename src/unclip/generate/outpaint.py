"""Outpainting: a picture continued beyond its sides, square by square, each drawn to fit what is there already.

A caption is one of the whole, and asked of every square it would be drawn in each of them anew. So the whole is drafted
after it first, small, around the given picture; then each square is drawn over its part of the draft, with z_i what CLIP
sees in that part. Without a caption the draft is made after what CLIP sees in the picture mirrored at its sides: more of
the same, where its own z_i would put one more of it over each border.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from unclip.generate.holes import Window, window_around
from unclip.generate.inpaint import fill, fill_steps, size_for
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo, recipe_of
from unclip.generate.settings import Settings, choose_seed
from unclip.generate.sources import PictureLike, read_source
from unclip.generate.stages import warn_if_cut
from unclip.generate.system import System
from unclip.generate.text_to_image import check_size, prior_steps
from unclip.generate.wishes import Wish, picture_of, read_wish
from unclip.images.files import MAX_PIXELS
from unclip.images.tensors import to_image, to_tensor
from unclip.rng import derive

MAX_TILES = 1000
MIN_SIDE = 8


def outpaint(
    system: System,
    picture: PictureLike,
    prompt: str | None = None,
    *,
    left: int = 0,
    top: int = 0,
    right: int = 0,
    bottom: int = 0,
    settings: Settings,
    seed: int | None = None,
    negative: str | None = None,
    callback: Callback | None = None,
) -> Picture:
    """`System.outpaint`."""
    source = read_source(picture)
    width, height = source.image.size
    sides = {"left": left, "top": top, "right": right, "bottom": bottom}
    _check(width, height, sides)
    seed = choose_seed(seed)
    prompt = prompt if prompt and prompt.strip() else None
    negative = negative if prompt and negative and negative.strip() else None
    warn_if_cut(system.tokenizer, [prompt or "", negative or ""])
    pixels = F.pad(to_tensor(source.image), (left, right, top, bottom))
    hole = torch.ones(pixels.shape[-2:], dtype=torch.bool)
    hole[top : top + height, left : left + width] = False
    tiles = plan_tiles(hole, min(width, height))
    size, rough = size_for(system, tiles[0].side), check_size(system, None)
    steps = fill_steps(system, settings, rough) + len(tiles) * fill_steps(
        system, settings, size, drafted=True
    )
    steps += 0 if prompt is None else prior_steps(system, settings)
    reporter = Reporter(callback, steps, 1)
    whole = window_around(pixels.shape[-1], pixels.shape[-2])
    if prompt is None:
        around = to_image(mirrored(to_tensor(source.image), whole, **sides))
        wish = Wish(system.embed_image(around).to(system.device), None, None)
    else:
        wish = read_wish(system, prompt, negative, seed, settings, reporter)
    own = derive(seed, "draft")
    draft = fill(system, pixels, hole, whole, wish, own, settings, reporter, size=rough)
    for index, tile in enumerate(tiles):
        own, square = derive(seed, "tile", index), tile.cut(torch.where(hole, draft, pixels))
        within = _wish_within(system, wish, square)
        pixels = fill(system, pixels, hole, tile, within, own, settings, reporter, size=size, draft=square)
        hole[tile.top : tile.top + tile.side, tile.left : tile.left + tile.side] = False
    recipe = recipe_of(
        system,
        "outpaint",
        seed=seed,
        size=(pixels.shape[-1], pixels.shape[-2]),
        settings=settings,
        sources=[source],
        prior=prompt is not None,
        prompt=prompt,
        negative=negative,
        **{name: amount for name, amount in sides.items() if amount},
    )
    return picture_of(pixels, wish, recipe)


def mirrored(
    pixels: Float[Tensor, "3 h w"], window: Window, *, left: int, top: int, right: int, bottom: int
) -> Float[Tensor, "3 s s"]:
    """The window of a picture that is mirrored, as often as it takes, on so many pixels at its sides; what lies beyond
    them is like its border."""
    height, width = pixels.shape[-2:]
    rows = _mirrored(torch.arange(window.top, window.top + window.side), top, height, bottom)
    columns = _mirrored(torch.arange(window.left, window.left + window.side), left, width, right)
    return pixels[:, rows[:, None], columns]


def _mirrored(there: Int[Tensor, " s"], before: int, length: int, after: int) -> Int[Tensor, " s"]:
    there = (there.clamp(0, before + length + after - 1) - before) % (2 * length)
    return torch.minimum(there, 2 * length - 1 - there)


def _wish_within(system: System, wish: Wish, square: Float[Tensor, "3 s s"]) -> Wish:
    """What is wanted of a square of the whole: what CLIP sees in its draft, where it has a picture tower."""
    if system.clip.config.towers != "both":
        return wish
    return Wish(system.embed_image(to_image(square)).to(system.device), None, wish.negative)


def plan_tiles(hole: Bool[Tensor, "h w"], side: int) -> list[Window]:
    """Squares that cover the hole, in the order in which to draw them: next is the one that knows the most.

    They overlap by half. Raises `ValueError` where there would be more than a thousand.
    """
    height, width = hole.shape
    columns, rows = _starts(width, side), _starts(height, side)
    if len(columns) * len(rows) > MAX_TILES:
        raise ValueError(
            f"{width}x{height} pixels around a picture of {side} are too many: add less at a time"
        )
    hole, tiles = hole.clone(), []
    waiting = [Window(left, top, side) for top in rows for left in columns]
    while hole.any():
        missing = [int(_square(hole, tile).sum()) for tile in waiting]
        best = min((count, index) for index, count in enumerate(missing) if count)[1]
        tiles.append(tile := waiting.pop(best))
        _square(hole, tile).fill_(False)
    return tiles


def _starts(length: int, side: int) -> list[int]:
    return [*range(0, length - side, max(1, side // 2)), length - side]


def _square(hole: Bool[Tensor, "h w"], tile: Window) -> Bool[Tensor, "s s"]:
    return hole[tile.top : tile.top + tile.side, tile.left : tile.left + tile.side]


def _check(width: int, height: int, sides: Mapping[str, int]) -> None:
    for name, amount in sides.items():
        if amount < 0:
            raise ValueError(f"{name} is {amount}: give how many pixels to add, 0 or more")
    if not any(sides.values()):
        raise ValueError("nothing is to be added: give left, top, right or bottom in pixels")
    if min(width, height) < MIN_SIDE:
        raise ValueError(
            f"the picture is {width}x{height}, too small to go on from: give {MIN_SIDE} pixels or more"
        )
    total = (width + sides["left"] + sides["right"]) * (height + sides["top"] + sides["bottom"])
    if total > MAX_PIXELS:
        raise ValueError(
            f"the result would have {total / 1e6:.0f} megapixels, more than {MAX_PIXELS / 1e6:g}"
        )


def again(redo: Redo) -> Picture:
    """An outpainted picture made again from its recipe."""
    (source,) = redo.sources()
    return outpaint(
        redo.system,
        source.image,
        redo.recipe.get("prompt"),
        **{name: redo.recipe.get(name, 0) for name in ("left", "top", "right", "bottom")},
        negative=redo.recipe.get("negative"),
        **redo.common,
    )
