"""Outpainting: a picture continued beyond its sides, square by square, each drawn to fit what is there already.

A caption is one of the whole, and asked of every square it would be drawn in each of them anew. So the whole is drafted
after it first, small, around the given picture; then each square is drawn over its part of the draft, with z_i what CLIP
sees in that part.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from unclip.generate.holes import Window, window_around
from unclip.generate.inpaint import fill, fill_steps, size_for
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo, recipe_of
from unclip.generate.settings import Settings, choose_seed
from unclip.generate.sources import PictureLike, embed_sources, read_source
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
    size, drafted = size_for(system, tiles[0].side), prompt is not None
    steps = len(tiles) * fill_steps(system, settings, size, drafted=drafted)
    if prompt is None:
        reporter = Reporter(callback, steps, 1)
        wish, draft = Wish(embed_sources(system, [source]), None, None), None
    else:
        rough = check_size(system, None)
        steps += prior_steps(system, settings) + fill_steps(system, settings, rough)
        reporter = Reporter(callback, steps, 1)
        wish = read_wish(system, prompt, negative, seed, settings, reporter)
        whole = window_around(pixels.shape[-1], pixels.shape[-2])
        own = derive(seed, "draft")
        draft = fill(system, pixels, hole, whole, wish, own, settings, reporter, size=rough)
    for index, tile in enumerate(tiles):
        own, within, square = derive(seed, "tile", index), wish, None
        if draft is not None:
            square = tile.cut(torch.where(hole, draft, pixels))
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
