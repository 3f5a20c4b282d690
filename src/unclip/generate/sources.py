"""Pictures given to a request: opened with guards, cropped for the model, and identified by a hash of their pixels."""

import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from PIL import Image as PillowImage
from torch import Tensor

from unclip.errors import RequestError
from unclip.generate.image import Image
from unclip.images.files import MAX_PIXELS, PictureError, flatten, middle_square, open_picture
from unclip.images.tensors import to_tensor

PictureLike = Image | PillowImage.Image | str | os.PathLike[str] | bytes
"""A result, a PIL image, the path of a file, or a file's bytes."""


class Source(NamedTuple):
    """A given picture, RGB or RGBA, and the SHA-256 of its mode, size and pixels."""

    image: PillowImage.Image
    sha256: str

    def square(self, size: int) -> Float[Tensor, "3 s s"]:
        """Middle square at `size` pixels a side, in [-1, 1]."""
        return to_tensor(middle_square(flatten(self.image), size))


def read_source(given: PictureLike) -> Source:
    """A picture, opened, checked and hashed.

    Raises `FileNotFoundError` for a missing file and `PictureError` for anything but a still PNG, JPEG or WebP picture
    of a sensible size.
    """
    if isinstance(given, Image):
        image = given.image
    elif isinstance(given, PillowImage.Image):
        image = given
        if getattr(image, "is_animated", False):
            raise PictureError("the picture is animated: give one of its frames as a still picture")
        if image.width * image.height > MAX_PIXELS:
            raise PictureError(
                f"the picture is {image.width}x{image.height}, more than {MAX_PIXELS / 1e6:g} megapixels: make it smaller"
            )
        if image.mode not in ("RGB", "RGBA"):
            image = image.convert("RGBA") if image.has_transparency_data else flatten(image)
    else:
        image = open_picture(given)
    head = f"{image.mode} {image.width}x{image.height}\n".encode()
    return Source(image, hashlib.sha256(head + image.tobytes()).hexdigest())


def check_originals(kind: str, recorded: Sequence[str], given: Sequence[Source]) -> None:
    """Raise `RequestError` unless `given` are the pictures whose hashes a provenance records, in its order."""
    if len(given) != len(recorded):
        raise RequestError(
            f"the picture was made from {len(recorded)} others by {kind!r}, and {len(given)} were given: give the "
            f"ones with the pixels {', '.join(map(_short, recorded))}"
        )
    for source, name in zip(given, recorded):
        if source.sha256 != name:
            raise RequestError(
                f"the picture was made from one with the pixels {_short(name)}, the given one has "
                f"{_short(source.sha256)}: give the original, in the recorded order"
            )


def _short(sha256: object) -> str:
    return f"sha256 {str(sha256)[:16]}"
