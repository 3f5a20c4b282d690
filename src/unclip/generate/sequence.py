"""Pictures along a path, as one: side by side in a strip, or one after another in an animation."""

import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unclip.generate.picture import Picture
from unclip.generate.recipe import Redo
from unclip.images.files import grid, write_atomically
from unclip.images.metadata import GENERATED, xmp_packet

ANIMATIONS = (".gif", ".webp")
_DESCRIPTION, _SOFTWARE = 0x010E, 0x0131  # EXIF tags (CIPA DC-008, table 4)


def strip(pictures: Sequence[Picture], along: str = "theta") -> Picture:
    """Pictures side by side that differ in `along` only; the recipe is theirs, with all of their values of that."""
    recipe = _joined(pictures, along)
    image = grid([picture.image for picture in pictures], columns=len(pictures))
    return Picture(image=image, recipe={**recipe, "layout": "strip"})


def animation(pictures: Sequence[Picture], kind: str, *, milliseconds: int = 120) -> bytes:
    """The pictures one after another, for ever, as ".gif" or ".webp", each shown for so long.

    The recipe and the mark that a model made it go along: in WebP as EXIF description and XMP, in GIF as the comment.
    """
    if kind not in ANIMATIONS:
        raise ValueError(
            f"{kind!r} is no kind of animation that is written: choose {' or '.join(ANIMATIONS)}"
        )
    if not 10 <= milliseconds <= 10_000:
        raise ValueError(f"{milliseconds} milliseconds a picture are out of range: give 10 to 10000")
    recipe = json.dumps(_joined(pictures, "theta"))
    frames = [picture.image for picture in pictures]
    common = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
    buffer = io.BytesIO()
    if kind == ".gif":
        note = json.dumps({"unclip": json.loads(recipe), "DigitalSourceType": GENERATED})
        frames[0].save(buffer, "GIF", comment=note.encode(), **common)
    else:
        exif = Image.Exif()
        exif[_DESCRIPTION], exif[_SOFTWARE] = recipe, "unclip"
        frames[0].save(
            buffer, "WEBP", quality=90, method=4, exif=exif, xmp=xmp_packet(GENERATED).encode(), **common
        )
    return buffer.getvalue()


def save_animation(
    pictures: Sequence[Picture],
    path: str | os.PathLike[str],
    *,
    milliseconds: int = 120,
    force: bool = False,
) -> Path:
    """Write `animation`, of the kind that the name ends in. Raises `FileExistsError` unless `force`."""
    path = Path(path)
    return write_atomically(
        path, animation(pictures, path.suffix.lower(), milliseconds=milliseconds), force=force
    )


def again_in_sequence(
    redo: Redo, make: Callable[[Sequence[Any]], Iterable[Picture]], along: str = "theta"
) -> Picture:
    """Whichever a recipe is of, made again: one picture of a path, or a strip of several."""
    values = redo.told(along)
    if redo.recipe.get("layout") != "strip":
        (picture,) = make([values])
        return picture
    return strip(list(make(values)), along)


def _joined(pictures: Sequence[Picture], along: str) -> dict[str, Any]:
    if not pictures:
        raise ValueError("there are no pictures to put together")
    return {**pictures[0].recipe, along: [picture.recipe[along] for picture in pictures]}
