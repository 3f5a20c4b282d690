"""What of a picture is to be drawn anew: masks, boxes and transparent pixels, and the square that is handed on."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from unclip.generate.sources import PictureLike, Source, read_source
from unclip.images.tensors import to_tensor

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
        return window_around(width, height)
    middle_x, middle_y = (left + right - side) // 2, (top + bottom - side) // 2
    return Window(min(max(middle_x, 0), width - side), min(max(middle_y, 0), height - side), side)


def window_around(width: int, height: int) -> Window:
    """The square with all of a picture in its middle."""
    side = max(width, height)
    return Window((width - side) // 2, (height - side) // 2, side)
