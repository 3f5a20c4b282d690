"""Where a model is: bundled with the package, or a folder. Nothing is ever downloaded here, nor torch imported."""

import importlib.resources
import os
from pathlib import Path

from unclip.checkpoints.manifest import MANIFEST


def bundled() -> dict[str, Path]:
    """The models that the package carries: name -> folder."""
    root = Path(str(importlib.resources.files("unclip"))) / "bundled"
    if not root.is_dir():
        return {}
    return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / MANIFEST).is_file()}


def resolve(model: str | os.PathLike[str]) -> Path:
    """The folder of a model, given the name of a bundled one or a path.

    Raises `FileNotFoundError` that lists the bundled names.
    """
    names = bundled()
    if isinstance(model, str) and model in names:
        return names[model]
    folder = Path(model).expanduser()
    if (folder / MANIFEST).is_file():
        return folder
    listed = ", ".join(names) or "none in this installation"
    if folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no model folder: it has no {MANIFEST}; bundled models: {listed}"
        )
    raise FileNotFoundError(
        f"there is no model {os.fspath(model)!r}: give a folder, or a bundled model: {listed}"
    )
