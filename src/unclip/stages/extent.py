"""Sizes of pictures: a side or (height, width), what a model that draws many sizes can draw, and what is near to it."""

import math
from typing import Any, NamedTuple

from unclip.errors import RequestError

MAX_SIDE = 4096
"""Largest side in pixels that a decoder which is not bound to one size is asked for."""
AS_THEY_ARE = 2.0
"""Windows of up to so many times the area that a model was made for, and down to one part in so many, are drawn at their own
size; others are brought near to that area."""

Sides = int | tuple[int, int]
"""Side of a square, or height and width. Requests hold it; a square is always its side."""


class Extent(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int

    @classmethod
    def of(cls, size: Sides) -> "Extent":
        """Height and width of a size."""
        return cls(size, size) if isinstance(size, int) else cls(*size)

    @property
    def size(self) -> Sides:
        """The extent as requests record it."""
        return self.height if self.height == self.width else (self.height, self.width)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def check_size(asked: Sides, *, name: str, step: int | None, sizes: list[int]) -> Sides:
    """`asked` as requests record it, if a model can draw it: any multiple of `step`, or without one the squares `sizes`.

    Raises `RequestError`, which names the nearest size that can be drawn.
    """
    extent = Extent.of(asked)
    if step is None:
        if extent.size in sizes:
            return extent.size
        near = min(sizes, key=lambda side: abs(math.log(side * side / extent.area)))
        shape = "pictures of" if isinstance(extent.size, int) else "square pictures of"
        given = extent.size if isinstance(extent.size, int) else extent
        raise RequestError(
            f"{name!r} makes {shape} {', '.join(map(str, sizes))} pixels, not {given}: {near} is the nearest"
        )
    if all(side % step == 0 and step <= side <= MAX_SIDE for side in extent):
        return extent.size
    near = rounded(extent, step)
    given = extent.size if isinstance(extent.size, int) else extent
    shown = near.size if isinstance(asked, int) else near
    raise RequestError(
        f"{name!r} makes pictures whose sides are multiples of {step} up to {MAX_SIDE}, not {given}: {shown} is the nearest"
    )


def rounded(extent: Extent, step: int) -> Extent:
    """The nearest extent whose sides are multiples of `step`, and neither 0 nor too large."""
    return Extent(*(_clamped(step * int(side / step + 0.5), step) for side in extent))


def whole(picture: Extent, step: int, area: int) -> Extent:
    """Extent of the window that holds a whole picture: up to the next multiples of `step` where it is drawn as it is."""
    padded = Extent(*(-(-side // step) * step for side in picture))
    return padded if _is_near(padded, area) else picture


def drawn_at(window: Extent, step: int, area: int) -> Extent:
    """Extent in which a window is drawn by a model that was made for so many pixels.

    Its own where that is near and a multiple of `step`; else that of its shape with about the area.
    """
    if _is_near(window, area) and not any(side % step for side in window):
        return window
    scale = math.sqrt(area / window.area)
    return rounded(Extent(*(max(1, round(side * scale)) for side in window)), step)


def _clamped(side: int, step: int) -> int:
    return min(max(side, step), MAX_SIDE // step * step)


def _is_near(window: Extent, area: int) -> bool:
    return area / AS_THEY_ARE <= window.area <= area * AS_THEY_ARE and max(window) <= MAX_SIDE


def at_once(picture: Extent, area: int) -> bool:
    """Whether a model that was made for so many pixels draws all of a picture's at once."""
    return picture.area <= area * AS_THEY_ARE


def read_size(text: str) -> Any:
    """Sides of a text: a side, or WIDTHxHEIGHT as in "768x512". Raises `ValueError` for anything else."""
    width, times, height = text.lower().partition("x")
    return Extent(int(height), int(width)).size if times else int(width)
