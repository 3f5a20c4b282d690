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


# Files that only public models' folders have at their top.
FOREIGN = (
    "model_index.json",
    "open_clip_config.json",
    "config.json",
    "prior_config.json",
    "prior/prior_config.json",
)
# What weights are called there, without shard, variant and suffix.
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
OPENCLIP_STEMS = ("open_clip_model", "open_clip_pytorch_model")
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


def resolve(model: str | os.PathLike[str]) -> Path:
    """The folder of a model, given the name of a bundled one, a path, or the id of one on the hub that was pulled.

    Raises `FileNotFoundError` that lists the bundled names, or says how to pull.
    """
    names = bundled()
    if isinstance(model, str) and model in names:
        return names[model]
    folder = Path(model).expanduser()
    if any((folder / name).is_file() for name in (MANIFEST, *FOREIGN)):
        return folder
    if isinstance(model, str) and not folder.exists() and HUB_ID.fullmatch(model):
        if (found := pulled(model)) is not None:
            return found
        raise FileNotFoundError(
            f"{model} is neither a folder nor a model that was pulled: `unclip models pull {model}` gets it from the hub"
        )
    listed = ", ".join(names) or "none in this installation"
    if folder.is_dir():
        pickled = sorted(path for path in folder.iterdir() if path.suffix in (".ckpt", ".pt", ".pth"))
        if pickled:
            raise FileNotFoundError(
                f"{folder} holds pickled weights, such as {pickled[0].name}: `unclip convert` reads those of Karlo, of "
                "OpenAI's CLIP and of LAION's prior"
            )
        raise FileNotFoundError(
            f"{folder} is no model folder: it has no {MANIFEST}; bundled models: {listed}"
        )
    raise FileNotFoundError(
        f"there is no model {os.fspath(model)!r}: give a folder, or a bundled model: {listed}"
    )
