"""Files of public model folders, read without torch: weights whole or in shards, JSON, licence."""

import hashlib
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unclip.checkpoints.foreign import not_weights
from unclip.checkpoints.manifest import PLAIN_NAME
from unclip.errors import ModelError

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""Names of weight files in diffusers' and transformers' folders, without shard, variant and suffix."""
OPENCLIP_STEMS = ("open_clip_model", "open_clip_pytorch_model")
_VARIANTS = ("", ".fp16")


def weight_files(folder: Path, stems: Sequence[str] = STEMS) -> tuple[Path, ...]:
    """Weight files of a component, in order of preference: safetensors, full precision, one file rather than shards.

    Raises `ModelError` if there are none, or if a shard is missing that the index names.
    """
    for suffix in (".safetensors", ".bin"):
        for stem in stems:
            for variant in _VARIANTS:
                if (file := folder / f"{stem}{variant}{suffix}").is_file():
                    return (file,)
                # Both places of the variant are in use.
                for index in (f"{stem}{suffix}.index{variant}.json", f"{stem}{variant}{suffix}.index.json"):
                    if (folder / index).is_file():
                        return _shards(folder / index)
    others = sorted(
        one.name
        for one in (folder.iterdir() if folder.is_dir() else ())
        if one.suffix in (".safetensors", ".bin")
    )
    there = f" under the names that are read ({', '.join(stems)}), but {others[0]}" if others else ""
    raise ModelError(f"{folder} holds no weights{there}: get the model again")


def _shards(index: Path) -> tuple[Path, ...]:
    """Files that an index names, in order."""
    held = read_json(index).get("weight_map")
    names = sorted(set(held.values())) if isinstance(held, dict) and held else []
    if not names or not all(isinstance(name, str) and PLAIN_NAME.fullmatch(name) for name in names):
        raise ModelError(f"{index} is damaged: its weight_map does not name files of its folder")
    for name in names:
        if not (index.parent / name).is_file():
            raise ModelError(
                f"{index.parent / name} is missing, which {index.name} names: get the model again"
            )
    return tuple(index.parent / name for name in names)


def read_json(path: Path) -> dict[str, Any]:
    """JSON object in a file. Raises `ModelError` if the file is missing or holds anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: get the model again") from None
    except ValueError as error:
        if found := not_weights(path):
            raise ModelError(f"{path} {found}") from None
        raise ModelError(f"{path} is damaged ({error}): get the model again") from error
    except RecursionError:
        raise ModelError(f"{path} is damaged (it is nested too deeply): get the model again") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} is damaged: it does not hold an object")
    return data


def licence_of(folder: Path) -> str:
    """Licence that the model card names, "" if none."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = re.match(r"---\n(.*?)^---$", text, re.S | re.M)
    # The name of an uncommon licence ("other") has a field of its own.
    found = (
        [re.search(rf"(?m)^{field}: *(\S+)", head[1]) for field in ("license_name", "license")]
        if head
        else []
    )
    return next((one[1] for one in found if one), "")


def sample_of(file: Path, pieces: int = 16, size: int = 65536) -> bytes:
    """SHA-256 of a file's name and length, and of 64 KiB at evenly spaced places."""
    length = file.stat().st_size
    digest = hashlib.sha256(f"{file.name} {length}".encode())
    with open(file, "rb") as opened:
        for index in range(pieces):
            opened.seek(max(0, length - size) * index // (pieces - 1))
            digest.update(opened.read(size))
    return digest.digest()


def header_holds(path: Path, name: bytes) -> bool:
    """Whether a name is in the header of a safetensors file, or in the index of a file that `torch.save` wrote."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
            if head[8:] == b"{":
                return name in file.read(min(int.from_bytes(head[:8], "little"), 1 << 26))
        if head[:2] != b"PK":
            return False
        with zipfile.ZipFile(path) as archive:
            index = next((one for one in archive.infolist() if one.filename.endswith("data.pkl")), None)
            return index is not None and index.file_size < 1 << 28 and name in archive.read(index)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
