"""`model.json`: manifest of a model folder, read strictly and without torch.

A folder is whole when every file that `model.json` names is there with the recorded size and SHA-256. Format 2 nests the
default settings by stage; format 1 (version 0.1) is still read.
"""

import glob
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unclip.checkpoints.foreign import not_weights
from unclip.config import ConfigError, from_dict, to_dict
from unclip.disk import is_abandoned, remove_abandoned
from unclip.errors import ModelError as ModelError
from unclip.errors import RequestError
from unclip.stages.latent_form import LatentForm
from unclip.stages.sampling import Sampling, read_sampling

MANIFEST = "model.json"
FORMAT = 2
READ = (1, 2)
"""Formats that this version reads."""
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file of the folder, with its size and SHA-256."""

    file: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PartEntry(FileEntry):
    """One network: its kind in the registry, its config, and its weights' file and storage type."""

    kind: str
    config: dict[str, Any]
    """As stored: the digest is computed from it, whatever this version makes of it."""
    storage: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Space:
    """Identity of the embedding space that parts share (`unclip.stages.space`); empty where it is unknown."""

    name: str = ""
    """Name of the CLIP."""
    fingerprint: tuple[float, ...] = ()
    """`fingerprint_of` its weights."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Content of `model.json`."""

    format: int = FORMAT
    name: str
    description: str = ""
    licence: str = ""
    parts: dict[str, PartEntry]
    tokenizer: FileEntry | None = None
    tokenizers: dict[str, FileEntry] = field(default_factory=dict)
    """Tokenizers of parts that have one of their own, by part."""
    defaults: Sampling = Sampling()
    """Sampling settings that suit this model; what is None is left to `unclip.stages.sampling.DEFAULTS`."""
    space: Space | None = None
    """Embedding space of the parts; the first folders of version 0.1 do not store it."""
    latents: LatentForm | None = None
    """Form of the latents that the decoder was trained on, of a decoder that was saved without its autoencoder."""

    @property
    def files(self) -> dict[str, FileEntry]:
        """Every file but `model.json` itself, by part name, "tokenizer", or "tokenizer of" a part."""
        own = {f"tokenizer of {name}": entry for name, entry in self.tokenizers.items()}
        return {**self.parts, **({"tokenizer": self.tokenizer} if self.tokenizer else {}), **own}

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with any weight, config or the tokenizer; pictures record them."""
        parts = {name: [part.kind, part.config, part.sha256] for name, part in sorted(self.parts.items())}
        held: list[Any] = [parts, self.tokenizer.sha256 if self.tokenizer else None]
        # Models without further tokenizers keep the digest that their pictures record.
        held += [{name: entry.sha256 for name, entry in self.tokenizers.items()}] if self.tokenizers else []
        text = json.dumps(held, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_manifest(folder: Path) -> Manifest:
    """Manifest of a folder, checked: known keys, known format, plain file names, files present in full size.

    Raises `FileNotFoundError` if there is no `model.json` and `ModelError` for the rest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a model folder: it has no {MANIFEST}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}): get the model again") from error
    if isinstance(data, dict) and data.get("format") not in READ:
        raise ModelError(
            f"{path} has format {data.get('format')!r}, this version reads {' and '.join(map(str, READ))}: upgrade unclip, or "
            "save the model again"
        )
    try:
        manifest = from_dict(Manifest, _upgraded(data) if isinstance(data, dict) else data)
    except (ConfigError, RequestError) as error:
        raise ModelError(f"{path}: {error}") from error
    for entry in manifest.files.values():
        if not PLAIN_NAME.fullmatch(entry.file):
            raise ModelError(
                f"{path} names the file {entry.file!r}: only plain names within the folder are read"
            )
        check_size(folder, entry)
    return manifest


def _upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """JSON of format 2, given that or format 1: flat defaults, and `sketch` for the fingerprint."""
    if data["format"] != 1:
        return data
    upgraded = data | {"format": FORMAT}
    if isinstance(data.get("defaults"), dict):
        upgraded["defaults"] = read_sampling(data["defaults"])
    if isinstance(space := data.get("space"), dict):
        upgraded["space"] = {
            "fingerprint" if name == "sketch" else name: value for name, value in space.items()
        }
    return upgraded


def check_size(folder: Path, entry: FileEntry) -> None:
    """Raise `ModelError` if the file is missing or its size is not the recorded one."""
    file = folder / entry.file
    if not file.is_file():
        raise ModelError(f"{file} is missing: get the model again")
    if (size := file.stat().st_size) != entry.size:
        if size and (found := not_weights(file)):
            raise ModelError(f"{file} {found}")
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
    """Summary of a folder for `unclip models`: name, description, licence, digest, bytes, parts, defaults."""
    manifest = read_manifest(folder)
    return {
        "name": manifest.name,
        "description": manifest.description,
        "licence": manifest.licence,
        "digest": manifest.digest,
        "bytes": sum(entry.size for entry in manifest.files.values()),
        "parts": {
            name: {"kind": part.kind, "bytes": part.size, "storage": part.storage}
            for name, part in manifest.parts.items()
        },
        "defaults": without_none(manifest.defaults),
    }


def without_none(config: Any) -> Any:
    """JSON of a config without the fields that are None."""
    data = to_dict(config) if not isinstance(config, dict | list) else config
    if isinstance(data, dict):
        return {name: without_none(value) for name, value in data.items() if value is not None}
    return [without_none(value) for value in data] if isinstance(data, list) else data


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(path: Path) -> dict[str, Any]:
    """The fields of `FileEntry` for a file that exists."""
    return {"file": path.name, "size": path.stat().st_size, "sha256": sha256_of(path)}


def _clear_abandoned(folder: Path) -> None:
    """Bring back a model that a killed process had moved away, and remove what it left half written."""
    mark = "[0-9a-f]" * 8
    beside = f".{glob.escape(folder.name)}.{mark}"
    for old in folder.parent.glob(f"{beside}.old"):
        if not folder.exists() and is_abandoned(old):
            old.rename(folder)
    for suffix in ("new", "old"):
        remove_abandoned(folder.parent, f"{beside}.{suffix}")


def write_folder(folder: Path, fill: Callable[[Path], Manifest], *, force: bool) -> Path:
    """Write a model folder: `fill` writes the files into a new folder, which one rename puts in place.

    If it is interrupted, `folder` holds all of the old model or all of the new one, or nothing. What a killed process left
    beside it is removed by the next one that writes there; an old model that it had moved away comes back. Raises
    `FileExistsError` if `folder` exists and `force` is not given, or if it holds anything but a model.
    """
    folder = folder.absolute()
    _clear_abandoned(folder)
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
        manifest = fill(fresh)
        data = to_dict(manifest) | {"format": FORMAT, "defaults": without_none(manifest.defaults)}
        text = json.dumps(data, indent=2, ensure_ascii=False)
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
