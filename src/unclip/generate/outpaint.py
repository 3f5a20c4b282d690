"""Outpainting: a picture continued beyond its sides, square by square, each drawn to fit what is there already."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from unclip.generate.holes import Window
from unclip.generate.inpaint import fill, fill_steps
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import recipe_of
from unclip.generate.settings import Settings, check_seed
from unclip.generate.sources import PictureLike, embed_sources, read_source, read_sources
from unclip.generate.stages import warn_if_cut
from unclip.generate.system import System
from unclip.generate.text_to_image import prior_steps
from unclip.generate.wishes import Wish, picture_of, read_wish
from unclip.images.files import MAX_PIXELS
from unclip.images.tensors import to_tensor
from unclip.rng import derive, draw_seed

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
    seed = draw_seed() if seed is None else check_seed(seed)
    prompt = prompt if prompt and prompt.strip() else None
    negative = negative if prompt and negative and negative.strip() else None
    warn_if_cut(system.tokenizer, [prompt or "", negative or ""])
    pixels = F.pad(to_tensor(source.image), (left, right, top, bottom))
    hole = torch.ones(pixels.shape[-2:], dtype=torch.bool)
    hole[top : top + height, left : left + width] = False
    tiles = plan_tiles(hole, min(width, height))
    steps = prior_steps(system, settings) if prompt else 0
    steps += len(tiles) * fill_steps(system, settings, tiles[0].side)
    reporter = Reporter(callback, steps, 1)
    if prompt is None:
        wish = Wish(embed_sources(system, [source]), None, None)
    else:
        wish = read_wish(system, prompt, negative, seed, settings, reporter)
    for index, tile in enumerate(tiles):
        pixels = fill(system, pixels, hole, tile, wish, derive(seed, "tile", index), settings, reporter)
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


def again(
    system: System,
    recipe: Mapping[str, Any],
    sources: Sequence[PictureLike],
    settings: Settings,
    callback: Callback | None,
) -> Picture:
    """An outpainted picture made again from its recipe."""
    (source,) = read_sources(recipe, sources, [1])
    return outpaint(
        system,
        source.image,
        recipe.get("prompt"),
        **{name: recipe.get(name, 0) for name in ("left", "top", "right", "bottom")},
        settings=settings,
        seed=recipe["seed"],
        negative=recipe.get("negative"),
        callback=callback,
    )
