"""Pictures given to a request: opened with guards, cropped for the model, and identified by a hash of their pixels."""

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from PIL import Image as PillowImage
from torch import Tensor

from unclip.errors import RequestError
from unclip.generate.image import Image
from unclip.images.errors import PictureWarning
from unclip.images.files import PixelSource, flatten, middle_part, middle_square, open_picture, resize
from unclip.images.tensors import to_tensor
from unclip.stages.extent import Extent

PictureLike = Image | PixelSource
"""A result, the path of a file, a file's bytes, an open file, a PIL image, or a numpy array of pixels."""


class Source(NamedTuple):
    """A given picture, RGB or RGBA, and the SHA-256 of its mode, size and pixels."""

    image: PillowImage.Image
    sha256: str
    warnings: tuple[str, ...] = ()
    """What was passed over in it, such as a colour profile that cannot be used."""

    def square(
        self,
        size: int,
        *,
        whole: bool = False,
        interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    ) -> Float[Tensor, "3 s s"]:
        """Middle square at `size` pixels a side, in [-1, 1]; with `whole`, all of the picture, out of shape."""
        image = flatten(self.image)
        if whole:
            return to_tensor(resize(image, size, interpolation))
        return to_tensor(middle_square(image, size, interpolation))

    def middle(self, extent: Extent) -> Float[Tensor, "3 h w"]:
        """The largest part in the middle that has the shape of `extent`, at that size, in [-1, 1]."""
        return to_tensor(middle_part(flatten(self.image), extent.width, extent.height))


def read_source(given: PictureLike | Any) -> Source:
    """A picture, opened, checked and hashed.

    All ways in give the same pixels (`unclip.images.files.open_picture`). Raises `FileNotFoundError` for a missing file
    and `PictureError` for anything but a still picture of a sensible size.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PictureWarning)
        image = open_picture(given.image if isinstance(given, Image) else given)
    for one in caught:
        warnings.warn(one.message, stacklevel=2)
    noted = tuple(str(one.message) for one in caught if issubclass(one.category, PictureWarning))
    head = f"{image.mode} {image.width}x{image.height}\n".encode()
    return Source(image, hashlib.sha256(head + image.tobytes()).hexdigest(), noted)


def listed_pictures(given: Sequence[PictureLike] | Any, name: str) -> tuple[PictureLike, ...]:
    """A list of pictures. Raises `RequestError`, saying what `name` is, for a single one, whose letters or rows are no pictures."""
    if isinstance(given, Sequence) and not isinstance(given, str | bytes | bytearray | memoryview):
        return tuple(given)
    raise RequestError(f"{name} is a {type(given).__name__}: give a list of pictures, such as [picture]")


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
