"""`model.json`: what a model folder holds, read strictly and without torch.

A folder is whole when every file that `model.json` names is there with the recorded size and SHA-256.
"""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unclip.config import ConfigError, from_dict, to_dict

MANIFEST = "model.json"
FORMAT = 1
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class ModelError(ValueError):
    """A model folder that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file of the folder, with what it must weigh."""

    file: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PartEntry(FileEntry):
    """One network: its kind in the registry, its config, and its weights' file and storage type."""

    kind: str
    config: dict[str, Any]
    storage: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Space:
    """The embedding space that parts share: the name of its CLIP, and a sketch of that CLIP's weights.

    Both may be empty, for what is not known.
    """

    name: str = ""
    sketch: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `model.json`."""

    format: int = FORMAT
    name: str
    description: str = ""
    licence: str = ""
    parts: dict[str, PartEntry]
    tokenizer: FileEntry | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    """Settings for generating that suit this model, such as steps and guidance."""
    space: Space | None = None
    """The embedding space of the parts, for folders without a CLIP that could tell; older folders do not say."""

    @property
    def files(self) -> dict[str, FileEntry]:
        """Every file but `model.json` itself, by what it is."""
        return {**self.parts, **({"tokenizer": self.tokenizer} if self.tokenizer else {})}

    @property
    def weights(self) -> str:
        """Twelve hexadecimal digits that change whenever a weight, a config or the tokenizer does."""
        parts = {name: [part.kind, part.config, part.sha256] for name, part in sorted(self.parts.items())}
        text = json.dumps([parts, self.tokenizer.sha256 if self.tokenizer else None], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_manifest(folder: Path) -> Manifest:
    """`model.json` of a folder, checked: known keys, known format, plain file names, files present in full size.

    Raises `FileNotFoundError` if there is no `model.json` and `ModelError` for the rest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no model folder: it has no {MANIFEST}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}): get the model again") from error
    if isinstance(data, dict) and data.get("format") != FORMAT:
        raise ModelError(
            f"{path} has format {data.get('format')!r}, this version reads {FORMAT}: upgrade unclip, or save it anew"
        )
    try:
        manifest = from_dict(Manifest, data)
    except ConfigError as error:
        raise ModelError(f"{path}: {error}") from error
    for entry in manifest.files.values():
        if not PLAIN_NAME.fullmatch(entry.file):
            raise ModelError(
                f"{path} names the file {entry.file!r}: only plain names within the folder are read"
            )
        check_size(folder, entry)
    return manifest


def check_size(folder: Path, entry: FileEntry) -> None:
    """Raise `ModelError` if the file is absent or has not the recorded size."""
    file = folder / entry.file
    if not file.is_file():
        raise ModelError(f"{file} is missing: get the model again")
    if (size := file.stat().st_size) != entry.size:
        raise ModelError(
            f"{file} has {size} bytes instead of {entry.size}: it is damaged, get the model again"
        )


def verify(folder: Path) -> Manifest:
    """Check every file's SHA-256, which takes reading all of it. Raises `ModelError` naming the first bad one."""
    manifest = read_manifest(folder)
    for entry in manifest.files.values():
        if (digest := sha256_of(folder / entry.file)) != entry.sha256:
            raise ModelError(
                f"{folder / entry.file} has SHA-256 {digest[:12]}... instead of {entry.sha256[:12]}...: "
                "it is damaged or was changed, get the model again"
            )
    return manifest


def describe(folder: Path) -> dict[str, Any]:
    """What `unclip models` tells of a folder: name, description, licence, weights, bytes, parts."""
    manifest = read_manifest(folder)
    return {
        "name": manifest.name,
        "description": manifest.description,
        "licence": manifest.licence,
        "weights": manifest.weights,
        "bytes": sum(entry.size for entry in manifest.files.values()),
        "parts": {
            name: {"kind": part.kind, "bytes": part.size, "storage": part.storage}
            for name, part in manifest.parts.items()
        },
        "defaults": manifest.defaults,
    }


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(path: Path) -> dict[str, Any]:
    """The fields of `FileEntry` for a file that exists."""
    return {"file": path.name, "size": path.stat().st_size, "sha256": sha256_of(path)}


def write_folder(folder: Path, fill: Callable[[Path], Manifest], *, force: bool) -> Path:
    """Let `fill` write a model's files into a new folder, add `model.json`, and put it in place in one rename.

    Whatever interrupts it, `folder` holds all of the old model or all of the new one, or nothing. Raises
    `FileExistsError` if `folder` exists and `force` is not given, or if it holds anything but a model.
    """
    folder = folder.absolute()
    if folder.exists():
        if not force:
            raise FileExistsError(f"{folder} exists: choose another name, or ask to overwrite it")
        if not (folder / MANIFEST).is_file() and any(folder.iterdir()):
            raise FileExistsError(
                f"{folder} is not a model folder, so it is not overwritten: choose another name"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    fresh, old = (
        folder.with_name(f".{folder.name}.{mark}.new"),
        folder.with_name(f".{folder.name}.{mark}.old"),
    )
    fresh.mkdir()
    try:
        text = json.dumps(to_dict(fill(fresh)), indent=2, ensure_ascii=False)
        (fresh / MANIFEST).write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    return folder
