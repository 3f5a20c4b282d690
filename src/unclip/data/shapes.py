"""A procedural data set of coloured shapes: captions and pictures from nothing, for tests and the `tiny` recipe."""

import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from unclip.data.sample import Sample, digest_of

COLOURS = {
    "red": (220, 38, 38),
    "green": (40, 160, 60),
    "blue": (40, 90, 220),
    "yellow": (245, 205, 30),
    "purple": (140, 60, 200),
    "black": (30, 30, 30),
}
SHAPES = ("circle", "square", "triangle", "ring")
SIZES = {"small": 0.45, "big": 0.8}

#: Shapes are drawn on a canvas of this many pixels a side before they are resized.
_CANVAS = 256


class Shapes:
    """`count` pictures such as "a small red circle", each a pure function of (seed, index).

    Every combination of size, colour and shape comes by turns; position differs. Offers the interface of
    :class:`unclip.data.sample.Dataset`.
    """

    def __init__(self, count: int = 480, seed: int = 0):
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count}")
        self.count, self.seed = count, seed

    @property
    def fingerprint(self) -> str:
        """Digest of the arguments and the version of the drawing code."""
        return digest_of(["shapes", 1, self.count, self.seed])

    def __len__(self) -> int:
        return self.count

    def keys(self) -> Sequence[str]:
        """shapes/0, shapes/1, ..."""
        return [f"shapes/{index}" for index in range(self.count)]

    def info(self, index: int) -> Sample:
        """Captions name the shape, its colour, and in some its size."""
        size, colour, shape = self._what(index)
        captions = (
            f"a {size} {colour} {shape}",
            f"a {colour} {shape}",
            f"{colour} {shape}",
            f"a {shape} in {colour}",
        )
        return Sample(
            f"shapes/{index}", captions, 1.0,
            {"concept": shape, "colour": colour, "size": size, "style": "shapes", "kind": "plain"},
        )  # fmt: skip

    def picture(self, index: int, size: int | None) -> np.ndarray:
        """RGB uint8 (3, size, size), antialiased; 256 px for None."""
        name, colour, shape = self._what(index)
        side = SIZES[name] * _CANVAS
        draw_x, draw_y = (value / 255 for value in self._bytes(index)[:2])
        room = (_CANVAS - side) * 0.5
        left, top = room + (draw_x - 0.5) * room, room + (draw_y - 0.5) * room
        canvas = Image.new("RGB", (_CANVAS, _CANVAS), "white")
        brush, box, fill = ImageDraw.Draw(canvas), (left, top, left + side, top + side), COLOURS[colour]
        if shape == "circle":
            brush.ellipse(box, fill=fill)
        elif shape == "square":
            brush.rectangle(box, fill=fill)
        elif shape == "triangle":
            brush.polygon([(left + side / 2, top), (left + side, top + side), (left, top + side)], fill=fill)
        else:
            brush.ellipse(box, outline=fill, width=round(side * 0.22))
        if size is not None and size != _CANVAS:
            canvas = canvas.resize((size, size), Image.Resampling.BOX)
        return np.ascontiguousarray(np.asarray(canvas).transpose(2, 0, 1))

    def _what(self, index: int) -> tuple[str, str, str]:
        if not 0 <= index < self.count:
            raise IndexError(f"index {index} is out of range for {self.count} shapes")
        sizes, colours = list(SIZES), list(COLOURS)
        shape = SHAPES[index % len(SHAPES)]
        colour = colours[index // len(SHAPES) % len(colours)]
        return sizes[index // (len(SHAPES) * len(colours)) % len(sizes)], colour, shape

    def _bytes(self, index: int) -> bytes:
        return hashlib.sha256(f"{self.seed}/{index}".encode()).digest()
