"""Inpainting masks (mask image, box or alpha), and the crops of a picture given to the decoder."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from unclip.errors import RequestError
from unclip.images.files import MAX_PIXELS
from unclip.images.tensors import to_tensor
from unclip.stages.extent import Extent

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are the first ones outside."""

MAX_TILES = 1000
MIN_SIDE = 8


class Window(NamedTuple):
    """A rectangle of a picture; it may reach beyond the border."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def square(cls, left: int, top: int, side: int) -> "Window":
        """A square window."""
        return cls(left, top, side, side)

    @property
    def extent(self) -> Extent:
        """Height and width."""
        return Extent(self.height, self.width)

    def reaching(self, extent: Extent) -> "Window":
        """The window made larger at the right and the bottom, up to an extent."""
        return Window(self.left, self.top, max(self.width, extent.width), max(self.height, extent.height))

    def cut(self, pixels: Float[Tensor, "c h w"], fill: float = 0.0) -> Float[Tensor, "c wh ww"]:
        """Pixels of the window, `fill` beyond the border."""
        height, width = pixels.shape[-2:]
        beyond = (-self.left, self.left + self.width - width, -self.top, self.top + self.height - height)
        return F.pad(pixels, beyond, value=fill)

    def paste(
        self, drawn: Float[Tensor, "c wh ww"], into: Float[Tensor, "c h w"], where: Bool[Tensor, "h w"]
    ) -> Float[Tensor, "c h w"]:
        """`into` with the window's pixels where `where` is True within the window."""
        height, width = into.shape[-2:]
        around = (self.left, width - self.left - self.width, self.top, height - self.top - self.height)
        placed = F.pad(drawn, around)
        inside = torch.zeros_like(where)
        rows = slice(max(self.top, 0), self.top + self.height)
        inside[rows, max(self.left, 0) : self.left + self.width] = True
        return torch.where(where & inside, placed, into)


def read_mask(
    picture: Image.Image, mask: Image.Image | None = None, box: Box | None = None
) -> Bool[Tensor, "h w"]:
    """Mask of the pixels to draw, True in the hole: from a mask image, a box, or the picture's own transparency.

    In a mask image, transparent pixels are drawn, or white ones where none is transparent. Raises `RequestError` for a
    mask of another size, a box outside the picture, and an empty mask.
    """
    width, height = picture.size
    if box is not None:
        left, top, right, bottom = box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise RequestError(
                f"the box {left},{top},{right},{bottom} does not lie in the picture of {width}x{height}: give "
                "left,top,right,bottom in pixels"
            )
        hole = torch.zeros(height, width, dtype=torch.bool)
        hole[top:bottom, left:right] = True
        return hole
    given = picture if mask is None else mask
    if given.size != picture.size:
        raise RequestError(
            f"the mask is {given.width}x{given.height} and the picture {width}x{height}: make them the same size"
        )
    hole = _transparent(given)
    if mask is not None and not hole.any():
        hole = to_tensor(given).mean(0) > 0
    if not hole.any():
        raise RequestError(
            "the picture has no transparent pixels: make the pixels to draw transparent, or give a mask or a box"
            if mask is None
            else "the mask is empty: make the pixels to draw white, or transparent"
        )
    return hole


def _transparent(image: Image.Image) -> Bool[Tensor, "h w"]:
    if image.mode != "RGBA":
        return torch.zeros(image.height, image.width, dtype=torch.bool)
    alpha = image.getchannel("A")
    return (
        torch.frombuffer(bytearray(alpha.tobytes()), dtype=torch.uint8).reshape(image.height, image.width)
        == 0
    )


def window_of(hole: Bool[Tensor, "h w"]) -> Window:
    """The square given to the decoder: the largest that fits the picture, centred on the hole; or one around the whole
    picture where the hole is longer than that."""
    height, width = hole.shape
    rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    side = min(height, width)
    if max(bottom - top, right - left) > side:
        return window_around(width, height)
    middle_x, middle_y = (left + right - side) // 2, (top + bottom - side) // 2
    return Window.square(min(max(middle_x, 0), width - side), min(max(middle_y, 0), height - side), side)


def window_around(width: int, height: int) -> Window:
    """The square that has a whole picture in its middle."""
    side = max(width, height)
    return Window.square((width - side) // 2, (height - side) // 2, side)


def extended(
    pixels: Float[Tensor, "3 h w"], *, left: int, top: int, right: int, bottom: int
) -> tuple[Float[Tensor, "3 hh ww"], Bool[Tensor, "hh ww"]]:
    """A picture with empty pixels added at its sides, and the mask of these. Raises `RequestError` for sizes out of range."""
    height, width = pixels.shape[-2:]
    sides = {"left": left, "top": top, "right": right, "bottom": bottom}
    check_extension(width, height, sides)
    padded = F.pad(pixels, (left, right, top, bottom))
    hole = torch.ones(padded.shape[-2:], dtype=torch.bool)
    hole[top : top + height, left : left + width] = False
    return padded, hole


def check_extension(width: int, height: int, sides: Mapping[str, int]) -> None:
    """Raise `RequestError` for a picture that cannot be extended so far."""
    if min(width, height) < MIN_SIDE:
        raise RequestError(
            f"the picture is {width}x{height}, too small to extend: give {MIN_SIDE} pixels or more"
        )
    total = (width + sides["left"] + sides["right"]) * (height + sides["top"] + sides["bottom"])
    if total > MAX_PIXELS:
        raise RequestError(
            f"the result would have {total / 1e6:.0f} megapixels, more than {MAX_PIXELS / 1e6:g}"
        )


def mirrored(
    pixels: Float[Tensor, "3 h w"], window: Window, *, left: int, top: int, right: int, bottom: int
) -> Float[Tensor, "3 wh ww"]:
    """A window of a picture that is mirrored at its sides as often as needed; beyond the added sides, the border repeats."""
    height, width = pixels.shape[-2:]
    rows = _mirrored(torch.arange(window.top, window.top + window.height), top, height, bottom)
    columns = _mirrored(torch.arange(window.left, window.left + window.width), left, width, right)
    return pixels[:, rows[:, None], columns]


def _mirrored(there: Int[Tensor, " s"], before: int, length: int, after: int) -> Int[Tensor, " s"]:
    there = (there.clamp(0, before + length + after - 1) - before) % (2 * length)
    return torch.minimum(there, 2 * length - 1 - there)


def plan_tiles(hole: Bool[Tensor, "h w"], side: int) -> list[Window]:
    """Squares that cover the hole, half overlapping, ordered so that the next is the one with the fewest unknown pixels.

    Raises `RequestError` for more than a thousand squares.
    """
    height, width = hole.shape
    columns, rows = _starts(width, side), _starts(height, side)
    if len(columns) * len(rows) > MAX_TILES:
        raise RequestError(
            f"{width}x{height} pixels around a picture of {side} are too many: add less at a time"
        )
    hole, tiles = hole.clone(), []
    waiting = [Window.square(left, top, side) for top in rows for left in columns]
    while hole.any():
        missing = [int(_square(hole, tile).sum()) for tile in waiting]
        best = min((count, index) for index, count in enumerate(missing) if count)[1]
        tiles.append(tile := waiting.pop(best))
        _square(hole, tile).fill_(False)
    return tiles


def _starts(length: int, side: int) -> list[int]:
    return [*range(0, length - side, max(1, side // 2)), length - side]


def _square(hole: Bool[Tensor, "h w"], tile: Window) -> Bool[Tensor, "s s"]:
    return hole[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]


def where(
    mask: Bool[Tensor, "h w"], inside: Float[Tensor, "c h w"], outside: Float[Tensor, "c h w"]
) -> Float[Tensor, "c h w"]:
    """Pixels of `inside` where the mask is True, of `outside` elsewhere."""
    return torch.where(mask, inside, outside)
