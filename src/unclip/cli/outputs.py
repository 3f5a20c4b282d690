"""Where pictures go: names of files, checks before the first picture is drawn, and how results are saved and printed."""

import argparse
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.cli import console, options
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.generate.image import Image

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
ANIMATIONS = (".gif", ".webp")


def plan(arguments: argparse.Namespace, stems: Sequence[str]) -> list[Path | None]:
    """Path of each picture, checked before the first is drawn; None where only the grid is wanted.

    Raises `UsageError` for names that do not end in .png, and `OSError` like `options.writable`.
    """
    if arguments.grid is not None:
        require_png(arguments.grid)
        options.writable(arguments.grid, force=arguments.force)
        if arguments.output is None:
            return [None] * len(stems)
    return [options.writable(path, force=arguments.force) for path in name_outputs(arguments.output, stems)]


def plan_joined(arguments: argparse.Namespace, stem: str) -> Path:
    """Path of a strip or an animation of all pictures, checked like `plan`."""
    path = Path(arguments.output or f"{stem}.png")
    if path.suffix.lower() not in ANIMATIONS:
        require_png(path)
    return options.writable(path, force=arguments.force)


def deliver(pictures: "Iterable[Image]", paths: Sequence[Path | None], arguments: argparse.Namespace) -> Any:
    """JSON of the pictures, each saved as soon as it is finished; paths are printed unless --json is given."""
    made, images = [], []
    for picture, path in zip(pictures, paths):
        images.append(picture.image)
        made.append(dict(picture.provenance))
        if path is not None:
            picture.save(path, force=arguments.force)
            made[-1] = {"path": str(path), **picture.provenance}
            _print_path(path, arguments)
    if arguments.grid is None:
        return made
    from unclip.images import grid, save_picture

    save_picture(grid(images, gap=8), arguments.grid, force=arguments.force)
    _print_path(arguments.grid, arguments)
    return {"path": str(arguments.grid), "pictures": made}


def deliver_joined(pictures: "Iterable[Image]", path: Path, arguments: argparse.Namespace) -> Any:
    """JSON of a strip or an animation of all pictures."""
    from unclip.generate.sequence import save_animation, strip

    made = list(pictures)
    joined = strip(made)
    if path.suffix.lower() in ANIMATIONS:
        save_animation(made, path, milliseconds=arguments.milliseconds, force=arguments.force)
    else:
        joined.save(path, force=arguments.force)
    _print_path(path, arguments)
    return [{"path": str(path), **joined.provenance}]


def _print_path(path: Path, arguments: argparse.Namespace) -> None:
    if not arguments.json:
        console.result(str(path))


def name_outputs(output: str | None, stems: Sequence[str]) -> list[Path]:
    """Path of each picture: `output` itself, numbered if there are several, or `stems` in the folder that it names.

    Raises `UsageError` for a name that is neither a folder's nor ends in .png.
    """
    path = Path(output or ".")
    if output is None or is_folder(output):
        return [path / f"{stem}.png" for stem in stems]
    require_png(path)
    if len(stems) == 1:
        return [path]
    width = len(str(len(stems)))
    return [path.with_stem(f"{path.stem}-{index:0{width}}") for index in range(1, len(stems) + 1)]


def is_folder(output: str | None) -> bool:
    """Whether `-o` names a folder: one that exists, or a name that ends in a separator."""
    return output is not None and (output.endswith(("/", "\\")) or os.path.isdir(output))


def require_png(path: Path) -> None:
    """Raise `UsageError` unless the name ends in .png."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: pictures are written as PNG; end the name in .png, or in / for a folder")


def pictures_in(folder: Path) -> list[Path]:
    """Pictures of a folder, sorted by name. Raises `UsageError` where there are fewer than two."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if len(found) < 2:
        raise UsageError(f"{folder}: it holds {len(found)} pictures; give 2 or more")
    return found


def slug(prompt: str) -> str:
    """File name from a prompt: its words in lower case without accents, as many as fit into 48 characters."""
    plain = unicodedata.normalize("NFKD", prompt)
    words = re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)).lower())
    name = "-".join(words)
    return (name if len(name) <= 48 else name[:49].rpartition("-")[0] or name[:48]) or "picture"
