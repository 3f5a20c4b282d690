"""Sizes of the compatible API: which picture is drawn for one, and how it is brought to it."""

import io
import json
from typing import NamedTuple

from unclip.images.files import decode, resize
from unclip.images.metadata import COMPOSITE, GENERATED, encode_png
from unclip.images.png import read_text
from unclip.serve.guard.errors import invalid
from unclip.serve.openai.backend import Served
from unclip.serve.openai.options import SIDES, Options
from unclip.stages.extent import Extent, Sides, drawn_at


class Output(NamedTuple):
    """Size of the answer's pictures, and the size at which they are drawn."""

    size: tuple[int, int] | None
    """Width and height; None for the picture's own."""
    drawn: Sides | None
    """As requests hold it; None for the model's default."""

    @property
    def label(self) -> str | None:
        """The size as OpenAI writes it."""
        return None if self.size is None else f"{self.size[0]}x{self.size[1]}"


def read_output(text: str | None, model: Served, options: Options, *, any_shape: bool = False) -> Output:
    """The output for a `size`: the API's squares and, unless strict, those that the model draws.

    A model that does not draw a size draws the next larger one, which is reduced; its largest one is enlarged where
    there is none. With `any_shape`, one that is not bound to squares takes any size, and draws near to what it was made for.
    """
    if text is None and options.strict:
        text = "1024x1024"
    if text is None or (text == "auto" and not options.strict):
        return Output(None, None)
    sides = sorted({*SIDES, *(() if options.strict else model.sizes)})
    side = next((side for side in sides if text == f"{side}x{side}"), None)
    free = any_shape and model.step is not None and not options.strict
    if side is None and free and (asked := _rectangle(text, options.max_side)) is not None:
        drawn = drawn_at(asked, model.step or 1, model.default_size**2)
        return Output((asked.width, asked.height), drawn.size)
    if side is None:
        listed = ", ".join(f"{side}x{side}" for side in sides)
        more = "" if options.strict else ", and auto for the model's own size"
        raise invalid(
            f"The size is not supported by this model. It draws {listed}{more}.",
            param="size",
            code="invalid_size",
        )
    largest = max(model.sizes)
    return Output((side, side), min((own for own in model.sizes if own >= side), default=largest))


def _rectangle(text: str, most: int) -> Extent | None:
    """Extent of WIDTHxHEIGHT with sides of at most so many pixels; None for anything else."""
    width, times, height = text.partition("x")
    digits = all(one.isascii() and one.isdigit() and len(one) < 6 for one in (width, height))
    if not times or not digits or not all(0 < int(one) <= most for one in (width, height)):
        return None
    return Extent(int(height), int(width))


def fitted(png: bytes, size: tuple[int, int] | None) -> bytes:
    """A PNG brought to a size, with its provenance; the same bytes where it has that size."""
    if size is None:
        return png
    image = decode(png, "the picture")
    if image.size == size:
        return png
    text = read_text(png).found
    provenance = json.loads(text["unclip"])
    results = {**(provenance.get("results") or {}), "resized": f"{size[0]}x{size[1]}"}
    method = "area" if _divides(image.size, size) else "bicubic"
    return encode_png(
        resize(image, size, method),
        provenance={**provenance, "results": results},
        parameters=text.get("parameters"),
        source_type=COMPOSITE if provenance.get("composite") else GENERATED,
    )


def _divides(own: tuple[int, int], size: tuple[int, int]) -> bool:
    return own[0] % size[0] == 0 and own[1] % size[1] == 0


def thumbnail(png: bytes, size: tuple[int, int]) -> bytes:
    """A preview at a size, without provenance: it is not finished."""
    image = resize(decode(png, "the preview"), size)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
