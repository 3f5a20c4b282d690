"""Folders of bundled models, and of models in the hub's cache. Downloads nothing and imports no torch."""

import importlib.resources
import os
import re
from pathlib import Path

from unclip.checkpoints.manifest import MANIFEST


def bundled() -> dict[str, Path]:
    """Folder of each bundled model, by name."""
    root = Path(str(importlib.resources.files("unclip"))) / "bundled"
    if not root.is_dir():
        return {}
    return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / MANIFEST).is_file()}


HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def hub_cache() -> Path:
    """Cache folder of the hub's client, which other programs share."""
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    home = Path(os.environ.get("HF_HOME", home))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()


def home_of(hub_id: str) -> Path:
    """Folder of a model in the hub's cache, with all of its revisions; it exists if the model was pulled."""
    return hub_cache() / f"models--{hub_id.replace('/', '--')}"


def pulled(hub_id: str) -> Path | None:
    """Folder of the revision of a model that was pulled last; None if it was not pulled."""
    home = home_of(hub_id)
    revision = home / "refs" / "main"
    if not revision.is_file():
        return None
    folder = home / "snapshots" / revision.read_text(encoding="utf-8").strip()
    return folder if folder.is_dir() else None
