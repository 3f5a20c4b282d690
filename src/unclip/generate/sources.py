"""Pictures that a user gives: opened with guards, squared for the model, and named in recipes by their pixels."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unclip.generate.picture import Picture
from unclip.images.files import MAX_PIXELS, PictureError, flatten, middle_square, open_picture
from unclip.images.tensors import to_tensor

PictureLike = Picture | Image.Image | str | os.PathLike[str] | bytes
"""A picture in memory, the path of a file, or a file's bytes."""


class Source(NamedTuple):
    """A given picture, RGB or RGBA, and the SHA-256 of its pixels: the same for a file, its copy in another format
    without loss, and the picture in memory."""

    image: Image.Image
    sha256: str

    def square(self, size: int) -> Float[Tensor, "3 s s"]:
        """Its middle square at `size` pixels a side, in [-1, 1]."""
        return to_tensor(middle_square(flatten(self.image), size))


def read_source(given: PictureLike) -> Source:
    """Open, check and hash a picture.

    Raises `FileNotFoundError` for a missing file and `PictureError` for what is no still PNG, JPEG or WebP picture of
    a sensible size.
    """
    if isinstance(given, Picture):
        image = given.image
    elif isinstance(given, Image.Image):
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


def read_sources(
    recipe: Mapping[str, Any], given: Sequence[PictureLike], wanted: Sequence[int]
) -> list[Source]:
    """The pictures that a recipe was made from, `wanted` of them being possible.

    Raises `ValueError` where the recipe names another number, or where the given ones are not those that it names.
    """
    named = recipe.get("sources") or []
    if len(named) not in wanted:
        raise ValueError(
            f"the recipe of {recipe.get('operation')!r} names {len(named)} pictures as its sources: it is damaged"
        )
    if len(given) != len(named):
        raise ValueError(
            f"the picture was made from {len(named)} others by {recipe.get('operation')!r}, and {len(given)} were "
            f"given: give the ones with the pixels {', '.join(map(_short, named))}"
        )
    sources = [read_source(one) for one in given]
    for source, name in zip(sources, named):
        if source.sha256 != name:
            raise ValueError(
                f"the picture was made from one with the pixels {_short(name)}, the given one has "
                f"{_short(source.sha256)}: give the original, in the order of the recipe"
            )
    return sources


@torch.no_grad()
def embed_sources(system: Any, sources: Sequence[Source]) -> Float[Tensor, "b d"]:
    """The CLIP image embeddings z_i, on the system's device."""
    return system.embed_image([source.image for source in sources]).to(system.device)


def _short(sha256: object) -> str:
    return f"sha256 {str(sha256)[:16]}"
