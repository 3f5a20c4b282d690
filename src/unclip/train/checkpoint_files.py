"""Folders of checkpoints: their names, their manifest with sizes and hashes, and whether they verify."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
ROOM = "make room, and the same command goes on from the last checkpoint"


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest, which vouches for the folder's files and for itself, and bring both to the disk."""
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({**content, "sha256": _digest(content)}, file)
        file.flush()
        os.fsync(file.fileno())
    sync(folder)


def prune(newest: Path, keep: int) -> None:
    """Remove all checkpoints but `newest` and the ones before it, `keep` in all.

    Whatever claims to be newer was found damaged when the run started, and must not displace the good.
    """
    found = checkpoints(newest.parent)
    old = [checkpoint for checkpoint in found if checkpoint.name <= newest.name]
    for checkpoint in set(found).difference(old[:keep]):
        shutil.rmtree(checkpoint)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    return sorted(folder.glob("samples-*"), reverse=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a folder that verifies; None if there is none."""
    return next((checkpoint for checkpoint in checkpoints(folder) if fault_of(checkpoint) is None), None)


def describe(file: Path) -> dict[str, Any]:
    """What the manifest says of a file, which is brought to the disk."""
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())
        return {
            "bytes": file.stat().st_size,
            "sha256": hashlib.file_digest(handle, "sha256").hexdigest(),
        }


def fault_of(checkpoint: Path, *, part: int = 0, of: int = 1) -> str | None:
    """Why a checkpoint cannot be used; None for a good one. Of `of` processes, number `part` reads its share of the files."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("sha256") != _digest(manifest):
            return f"{MANIFEST} does not match its checksum"
        for name, entry in sorted(manifest["files"].items())[part::of]:
            file = checkpoint / name
            if file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}"
            with file.open("rb") as handle:
                if hashlib.file_digest(handle, "sha256").hexdigest() != entry["sha256"]:
                    return f"{name} does not match its checksum"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return repr(error)
    return None


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def sync(folder: Path) -> None:
    """Bring a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
