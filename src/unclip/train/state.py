"""Checkpoints of a run: always a new folder, the manifest last, then renamed; the newest that verifies is used.

A kill at any moment leaves either the old checkpoints or the old ones and a whole new one. As all randomness is a
function of the seed and the sample's number, the state is the weights, their average, the optimisers, and one number.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unclip.train.ema import Ema

MANIFEST = "manifest.json"


class TrainingState:
    """All that a run has to remember."""

    def __init__(self, model: nn.Module, ema: Ema, optimizers: list[torch.optim.Optimizer]):
        self.model, self.ema, self.optimizers = model, ema, optimizers
        self.samples = 0
        self.steps = 0

    def save(self, folder: Path, *, keep: int) -> Path:
        """Write a checkpoint below `folder` and remove all but the newest `keep`."""
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
        tensors, numbers = _flatten([optimizer.state_dict() for optimizer in self.optimizers])
        parts = {"model": self.model.state_dict(), "ema": self.ema.state_dict(), "optimizers": tensors}
        for name, part in parts.items():
            save_file({key: value.contiguous() for key, value in part.items()}, fresh / f"{name}.safetensors")
        manifest = {
            "samples": self.samples,
            "steps": self.steps,
            "optimizers": numbers,
            "files": {f"{name}.safetensors": _describe(fresh / f"{name}.safetensors") for name in parts},
        }
        with (fresh / MANIFEST).open("w") as file:
            json.dump(manifest, file)
            file.flush()
            os.fsync(file.fileno())
        target = folder / f"samples-{self.samples:012d}"
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
        _sync_folder(folder)
        for old in _checkpoints(folder)[keep:]:
            shutil.rmtree(old)
        return target

    def load_newest(self, folder: Path) -> Path | None:
        """Take over the newest checkpoint that verifies, and say which; damaged ones are named in a warning."""
        for checkpoint in _checkpoints(folder):
            try:
                manifest = _verify(checkpoint)
                tensors = {
                    name: load_file(checkpoint / f"{name}.safetensors")
                    for name in ("model", "ema", "optimizers")
                }
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                warnings.warn(
                    f"the checkpoint {checkpoint} is damaged and was passed over: {error}", stacklevel=2
                )
                continue
            self.model.load_state_dict(tensors["model"])
            self.ema.load_state_dict(tensors["ema"])
            for optimizer, state in zip(
                self.optimizers, _unflatten(tensors["optimizers"], manifest["optimizers"])
            ):
                optimizer.load_state_dict(state)
            self.samples, self.steps = manifest["samples"], manifest["steps"]
            return checkpoint
        return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("samples-*"), reverse=True)


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())
        handle.seek(0)
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def _verify(checkpoint: Path) -> dict[str, Any]:
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    for name, entry in manifest["files"].items():
        file = checkpoint / name
        if file.stat().st_size != entry["bytes"]:
            raise ValueError(f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}")
        with file.open("rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != entry["sha256"]:
                raise ValueError(f"{name} does not match its checksum")
    return manifest


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flatten(states: list[dict[str, Any]]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Optimiser states as flat tensors for safetensors and the remaining numbers for JSON."""
    tensors: dict[str, Tensor] = {}
    numbers = []
    for index, state in enumerate(states):
        for parameter, values in state["state"].items():
            for name, value in values.items():
                tensors[f"{index}/{parameter}/{name}"] = (
                    value if isinstance(value, Tensor) else torch.tensor(value)
                )
        numbers.append({"param_groups": state["param_groups"]})
    return tensors, numbers


def _unflatten(tensors: Mapping[str, Tensor], numbers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    states = [{"state": {}, "param_groups": entry["param_groups"]} for entry in numbers]
    for key, value in tensors.items():
        index, parameter, name = key.split("/")
        states[int(index)]["state"].setdefault(int(parameter), {})[name] = value
    return states
