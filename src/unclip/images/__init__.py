"""Pictures: files in and out (`files`), their pixels as tensors (`tensors`), the recipe they carry (`metadata`).

The names below are loaded when first used, so that reading a recipe does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unclip.images.errors import PictureError, PictureWarning
    from unclip.images.files import (
        MAX_PIXELS,
        centre_crop,
        flatten,
        grid,
        open_picture,
        picture_size,
        resize,
        write_atomically,
    )
    from unclip.images.metadata import (
        COMPOSITE,
        GENERATED,
        read_parameters,
        read_provenance,
        read_text,
        save_picture,
        xmp_packet,
    )
    from unclip.images.tensors import from_uint8, to_image, to_tensor, to_uint8

_HOMES = {
    "errors": ("PictureError", "PictureWarning"),
    "files": (
        "MAX_PIXELS",
        "centre_crop",
        "flatten",
        "grid",
        "open_picture",
        "picture_size",
        "resize",
        "write_atomically",
    ),
    "metadata": (
        "COMPOSITE",
        "GENERATED",
        "read_parameters",
        "read_provenance",
        "read_text",
        "save_picture",
        "xmp_packet",
    ),
    "tensors": ("from_uint8", "to_image", "to_tensor", "to_uint8"),
}

__all__ = [
    "COMPOSITE",
    "GENERATED",
    "MAX_PIXELS",
    "PictureError",
    "PictureWarning",
    "centre_crop",
    "flatten",
    "from_uint8",
    "grid",
    "open_picture",
    "picture_size",
    "read_parameters",
    "read_provenance",
    "read_text",
    "resize",
    "save_picture",
    "to_image",
    "to_tensor",
    "to_uint8",
    "write_atomically",
    "xmp_packet",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"unclip.images.{module}"), name)
    raise AttributeError(f"module 'unclip.images' has no attribute {name!r}")
