"""Where a model is: bundled with the package, a folder, or in the hub's cache. Nothing is downloaded here, no torch."""

import importlib.resources
import os
import re
from pathlib import Path

from unclip.checkpoints.manifest import MANIFEST


def bundled() -> dict[str, Path]:
    """The models that the package carries: name -> folder."""
    root = Path(str(importlib.resources.files("unclip"))) / "bundled"
    if not root.is_dir():
        return {}
    return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / MANIFEST).is_file()}


HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def hub_cache() -> Path:
    """Where the hub's client keeps what was pulled; other programs share it."""
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    home = Path(os.environ.get("HF_HOME", home))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()


def home_of(hub_id: str) -> Path:
    """Where the hub's cache keeps a model with all of its revisions, if it was pulled."""
    return hub_cache() / f"models--{hub_id.replace('/', '--')}"


def pulled(hub_id: str) -> Path | None:
    """The folder of a model in the hub's cache, as it was last pulled; None where it was not."""
    home = home_of(hub_id)
    revision = home / "refs" / "main"
    if not revision.is_file():
        return None
    folder = home / "snapshots" / revision.read_text(encoding="utf-8").strip()
    return folder if folder.is_dir() else None
