"""Pictures along a path as one: side by side in a strip, or one after another in an animation."""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage

from unclip.config import read_value
from unclip.errors import RequestError
from unclip.generate.image import Image
from unclip.images.files import grid, write_atomically
from unclip.images.metadata import GENERATED, xmp_packet

ANIMATIONS = (".gif", ".webp")
AXES = ("thetas", "dimensions")
"""Fields of requests that hold one value per picture."""
_DESCRIPTION, _SOFTWARE = 0x010E, 0x0131  # EXIF tags (CIPA DC-008, table 4)


def strip(pictures: Sequence[Image]) -> Image:
    """Pictures of one path side by side; the provenance holds the values of all."""
    provenance = _joined(pictures)
    image = grid([picture.image for picture in pictures], columns=len(pictures))
    return Image(image=image, provenance={**provenance, "size": list(image.size), "layout": "strip"})


def animation(pictures: Sequence[Image], kind: str, *, milliseconds: int | Any = 120) -> bytes:
    """Bytes of an endless animation, ".gif" or ".webp", each picture shown for `milliseconds`.

    Provenance and the IPTC mark are EXIF description and XMP in WebP, the comment in GIF.
    """
    if kind not in ANIMATIONS:
        raise ValueError(f"{kind!r} is not an animation format: choose {' or '.join(ANIMATIONS)}")
    milliseconds = read_value(int, milliseconds, "milliseconds", error=RequestError)
    if not 10 <= milliseconds <= 10_000:
        raise ValueError(f"{milliseconds} milliseconds per picture are out of range: give 10 to 10000")
    provenance = _joined(pictures)
    frames = [picture.image for picture in pictures]
    common = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
    buffer = io.BytesIO()
    if kind == ".gif":
        note = json.dumps({"unclip": provenance, "DigitalSourceType": GENERATED})
        frames[0].save(buffer, "GIF", comment=note.encode(), **common)
    else:
        exif = PillowImage.Exif()
        exif[_DESCRIPTION], exif[_SOFTWARE] = json.dumps(provenance), "unclip"
        frames[0].save(
            buffer, "WEBP", quality=90, method=4, exif=exif, xmp=xmp_packet(GENERATED).encode(), **common
        )
    return buffer.getvalue()


def save_animation(
    pictures: Sequence[Image],
    path: str | os.PathLike[str],
    *,
    milliseconds: int | Any = 120,
    force: bool = False,
) -> Path:
    """Path of an animation, of the format that its name ends in. Raises `FileExistsError` unless `force`."""
    path = Path(path)
    return write_atomically(
        path, animation(pictures, path.suffix.lower(), milliseconds=milliseconds), force=force
    )


def _joined(pictures: Sequence[Image]) -> dict[str, Any]:
    """Provenance of all pictures: the first one's, with every one's value of the field in which they differ."""
    if not pictures:
        raise ValueError("there are no pictures to join")
    first = pictures[0].provenance
    request = dict(first["request"])
    for axis in AXES:
        if axis in request:
            request[axis] = [value for picture in pictures for value in picture.provenance["request"][axis]]
    return {**first, "request": request}
