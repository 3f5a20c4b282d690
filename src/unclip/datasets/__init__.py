"""Data sets that this project builds: their content, captions and metadata. The readers are in `unclip.data`."""

from collections.abc import Callable, Mapping
from typing import Any

from unclip.datasets.artwork.everyday import is_everyday

#: Fields that are computed from a sample's metadata where they are not stored.
DERIVED: dict[str, Callable[[Mapping[str, Any]], Any]] = {"everyday": is_everyday}


def derived(meta: Mapping[str, Any], name: str) -> Any:
    """A field of a sample's metadata, stored or computed; None where it is neither."""
    if name not in meta and name in DERIVED:
        return DERIVED[name](meta)
    return meta.get(name)
