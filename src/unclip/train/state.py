"""Checkpoints: each in a new folder, the manifest written last, then renamed; the newest that verifies is loaded.

A kill at any moment leaves either the old checkpoints or the old ones and a whole new one. As all randomness is a
function of the seed and the sample's number, the state is the weights, their average, the optimisers, and one number.
"""

import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unclip.disk import DiskFull, disk_full, is_full, require_room
from unclip.train.ema import Ema, copy_of

MANIFEST = "manifest.json"
PARTS = ("model", "ema", "optimizers")
BEST = "best"
ROOM = "make room, and the same command goes on from the last checkpoint"


class DamagedCheckpoint(UserWarning):
    """A checkpoint that does not verify was skipped."""


class Best(NamedTuple):
    """The average with the least validation loss so far, that loss, and the samples seen then."""

    loss: float
    samples: int
    average: dict[str, Tensor]


class TrainingState:
    """State of a run: weights, average, optimisers, samples seen, and the best average where the run keeps that."""

    def __init__(self, model: nn.Module, ema: Ema, optimizers: list[torch.optim.Optimizer]):
        self.model, self.ema, self.optimizers = model, ema, optimizers
        self.samples = 0
        self.steps = 0
        self.best: Best | None = None

    def keep_if_best(self, loss: float) -> None:
        """Keep the current average if its validation loss is finite and the least so far."""
        if math.isfinite(loss) and (self.best is None or loss < self.best.loss):
            self.best = Best(loss, self.samples, copy_of(self.ema.average))

    def save(self, folder: Path, *, keep: int) -> Path:
        """Write a checkpoint below `folder` and remove all but the newest `keep`."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"samples-{self.samples:012d}"
        if target.exists() and _fault(target) is None:
            return target
        for leftover in folder.glob(".writing-*"):
            shutil.rmtree(leftover)
        fresh = folder / f".writing-{os.getpid()}"
        fresh.mkdir()
        try:
            self._write(fresh)
        except BaseException as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if is_full(error) and not isinstance(error, DiskFull):
                raise disk_full(target, self._size(), what="the checkpoint", remedy=ROOM) from error
            raise
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
        _sync(folder)
        # Whatever claims to be newer than this run was found damaged when it started, and must not displace the good.
        old = [checkpoint for checkpoint in _checkpoints(folder) if checkpoint.name <= target.name]
        for checkpoint in set(_checkpoints(folder)).difference(old[:keep]):
            shutil.rmtree(checkpoint)
        return target

    def load_newest(self, folder: Path) -> Path | None:
        """Load the newest checkpoint that verifies and return its folder; warns `DamagedCheckpoint` of each that does not."""
        for checkpoint in _checkpoints(folder):
            fault = _fault(checkpoint)
            if fault is None:
                self._read(checkpoint)
                return checkpoint
            warnings.warn(
                f"the checkpoint {checkpoint} is damaged and was skipped: {fault}",
                DamagedCheckpoint,
                stacklevel=2,
            )
        return None

    def _contents(self) -> tuple[dict[str, dict[str, Tensor]], list[dict[str, Any]]]:
        """The tensors of each file, and the optimisers' numbers."""
        tensors, numbers = _flatten([optimizer.state_dict() for optimizer in self.optimizers])
        whole = (self.model.state_dict(), self.ema.state_dict(), tensors)
        contents: dict[str, dict[str, Tensor]] = dict(zip(PARTS, whole, strict=True))
        if self.best is not None:
            contents[BEST] = self.best.average
        return contents, numbers

    def _size(self) -> int:
        """About the bytes of a checkpoint: its tensors, and their names and places."""
        contents, _ = self._contents()
        tensors = [tensor for content in contents.values() for tensor in content.values()]
        return sum(tensor.nbytes for tensor in tensors) + 512 * len(tensors) + 4096

    def _write(self, fresh: Path) -> None:
        contents, numbers = self._contents()
        # Whether there is room is known before the first of the files is written.
        final = fresh.with_name(f"samples-{self.samples:012d}")
        require_room(fresh, self._size(), name=final, what="the checkpoint", remedy=ROOM)
        for name, content in contents.items():
            save_file(
                {key: value.contiguous() for key, value in content.items()}, fresh / f"{name}.safetensors"
            )
        manifest = {
            "samples": self.samples,
            "steps": self.steps,
            "optimizers": numbers,
            "files": {f"{name}.safetensors": _describe(fresh / f"{name}.safetensors") for name in contents},
        }
        if self.best is not None:
            manifest[BEST] = {"loss": self.best.loss, "samples": self.best.samples}
        with (fresh / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump({**manifest, "sha256": _digest(manifest)}, file)
            file.flush()
            os.fsync(file.fileno())
        _sync(fresh)

    def _read(self, checkpoint: Path) -> None:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        model, ema, tensors = (load_file(checkpoint / f"{name}.safetensors") for name in PARTS)
        self.model.load_state_dict(self._named(model))
        self.ema.load_state_dict(self._named(ema))
        states = _unflatten(tensors, manifest["optimizers"])
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
            _lay_out_as_parameters(optimizer)
        self.samples, self.steps = manifest["samples"], manifest["steps"]
        if BEST in manifest:
            self.best = Best(
                **manifest[BEST], average=self._named(load_file(checkpoint / f"{BEST}.safetensors"))
            )

    def _named(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights by this version's names: checkpoints of 0.1 have the network's, without that of the task."""
        if weights.keys() == self.model.state_dict().keys():
            return weights
        return {f"network.{name}": weight for name, weight in weights.items()}


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    # Fused steps walk plain memory, so moments of a channels-last weight must be channels-last as well; files are not.
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(
                    value
                )


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a folder that verifies; None if there is none."""
    return next((checkpoint for checkpoint in _checkpoints(folder) if _fault(checkpoint) is None), None)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("samples-*"), reverse=True)


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())
        return {
            "bytes": file.stat().st_size,
            "sha256": hashlib.file_digest(handle, "sha256").hexdigest(),
        }


def _fault(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used; None for a good one."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("sha256") != _digest(manifest):
            return f"{MANIFEST} does not match its checksum"
        for name, entry in manifest["files"].items():
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


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flatten(states: list[dict[str, Any]]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Optimiser states as flat tensors for safetensors and the remaining numbers for JSON."""
    tensors: dict[str, Tensor] = {}
    for index, state in enumerate(states):
        for parameter, values in state["state"].items():
            tensors |= {f"{index}/{parameter}/{name}": value for name, value in values.items()}
    return tensors, [{"param_groups": state["param_groups"]} for state in states]


def _unflatten(tensors: Mapping[str, Tensor], numbers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    states = [{"state": {}, "param_groups": entry["param_groups"]} for entry in numbers]
    for key, value in tensors.items():
        index, parameter, name = key.split("/")
        states[int(index)]["state"].setdefault(int(parameter), {})[name] = value
    return states
