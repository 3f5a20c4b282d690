"""unclip: a complete, open DALL·E 2. Pictures from text by way of CLIP image embeddings.

import unclip
model = unclip.load("artwork")
for picture in model.generate("a red rocket", n=4, seed=7):
    picture.save(f"{picture.seed}.png")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unclip.errors import Cancelled, ModelError, NonFinite, RequestError, Unsupported
    from unclip.generate.image import Image, Images
    from unclip.generate.model import Model, load
    from unclip.generate.operations import (
        Components,
        Edit,
        Generate,
        Interpolate,
        Outpaint,
        Reconstruct,
        Redraw,
        TextDiff,
        Upscale,
        Vary,
    )
    from unclip.generate.progress import Progress
    from unclip.generate.request import Request
    from unclip.images.files import PictureError
    from unclip.stages.sampling import DecoderSampling, PriorSampling, Sampling, UpsamplerSampling

    __version__: str

# Loaded when first used: `import unclip` must not wait for torch.
_HOMES = {
    "unclip.errors": ("Cancelled", "ModelError", "NonFinite", "RequestError", "Unsupported"),
    "unclip.generate.image": ("Image", "Images"),
    "unclip.generate.model": ("Model", "load"),
    "unclip.generate.operations": (
        "Components",
        "Edit",
        "Generate",
        "Interpolate",
        "Outpaint",
        "Reconstruct",
        "Redraw",
        "TextDiff",
        "Upscale",
        "Vary",
    ),
    "unclip.generate.progress": ("Progress",),
    "unclip.generate.request": ("Request",),
    "unclip.images.files": ("PictureError",),
    "unclip.stages.sampling": ("DecoderSampling", "PriorSampling", "Sampling", "UpsamplerSampling"),
}
_RENAMED = {"Picture": "Image", "System": "Model"}

__all__ = [
    "Cancelled",
    "Components",
    "DecoderSampling",
    "Edit",
    "Generate",
    "Image",
    "Images",
    "Interpolate",
    "Model",
    "ModelError",
    "NonFinite",
    "Outpaint",
    "PictureError",
    "PriorSampling",
    "Progress",
    "Reconstruct",
    "Redraw",
    "Request",
    "RequestError",
    "Sampling",
    "TextDiff",
    "Unsupported",
    "UpsamplerSampling",
    "Upscale",
    "Vary",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("unclip")
    if name in _RENAMED:
        import warnings

        warnings.warn(f"unclip.{name} is now unclip.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'unclip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
