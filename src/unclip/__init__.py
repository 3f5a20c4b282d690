"""unclip: a complete, open DALL·E 2. Pictures from text by way of CLIP image embeddings.

import unclip
model = unclip.load("artwork")
for picture in model.generate("a red rocket", n=4, seed=7):
    picture.save(f"{picture.seed}.png")
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unclip.generate.picture import Picture
    from unclip.generate.system import System, load

    __version__: str

# Loaded when first used: `import unclip` must not wait for torch.
_HOMES = {
    "Picture": "unclip.generate.picture",
    "System": "unclip.generate.system",
    "load": "unclip.generate.system",
}

__all__ = ["Picture", "System", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("unclip")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'unclip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
