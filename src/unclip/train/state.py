"""Checkpoints: each in a new folder, the manifest written last, then renamed; the newest that verifies is loaded.

A kill at any moment leaves either the old checkpoints or the old ones and a whole new one. As all randomness is a
function of the seed and the sample's number, the state is the weights, their average, the optimisers, and one number.
"""

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
from unclip.train.checkpoint_files import (
    MANIFEST,
    ROOM,
    checkpoints,
    describe,
    fault_of,
    prune,
    sync,
    write_manifest,
)
from unclip.train.ema import Ema, copy_of
from unclip.train.world import World, is_sharded

PARTS = ("model", "ema", "optimizers")
BEST = "best"


class DamagedCheckpoint(UserWarning):
    """A checkpoint that does not verify was skipped."""


class Best(NamedTuple):
    """The average with the least validation loss so far, that loss, and the samples seen then."""

    loss: float
    samples: int
    average: dict[str, Tensor]


class TrainingState:
    """State of a run: weights, average, optimisers, samples seen, and the best average where the run keeps that."""

    def __init__(
        self,
        model: nn.Module,
        ema: Ema,
        optimizers: list[torch.optim.Optimizer],
        world: World | None = None,
    ):
        self.model, self.ema, self.optimizers = model, ema, optimizers
        self.world = World() if world is None else world
        self._writer: Any = None
        self.samples = 0
        self.steps = 0
        self.best: Best | None = None

    def keep_if_best(self, loss: float) -> None:
        """Keep the current average if its validation loss is finite and the least so far."""
        if math.isfinite(loss) and (self.best is None or loss < self.best.loss):
            self.best = Best(loss, self.samples, copy_of(self.ema.average))

    def save(self, folder: Path, *, keep: int) -> Path:
        """Write a checkpoint below `folder` and remove all but the newest `keep`."""
        target = folder / f"samples-{self.samples:012d}"
        if self.world.from_main(lambda: target.exists() and fault_of(target) is None):
            return target
        if self.world.size > 1:
            return self._save_shards(target, keep)
        folder.mkdir(parents=True, exist_ok=True)
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
        sync(folder)
        prune(target, keep)
        return target

    def _save_shards(self, target: Path, keep: int) -> Path:
        from unclip.train.sharded_checkpoint import ShardedWriter

        if self._writer is None:
            self._writer = ShardedWriter(self.world)
        self._writer.save(target, self._by_name(), self._numbers(), keep=keep)
        return target

    def close(self) -> None:
        """Wait for a checkpoint that is written while training goes on, and end the thread that writes it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def load_newest(self, folder: Path) -> Path | None:
        """Load the newest checkpoint that verifies and return its folder; warns `DamagedCheckpoint` of each that does not.

        It may come from any number of processes in any layout.
        """
        world = self.world
        for checkpoint in world.from_main(lambda: checkpoints(folder)):
            faults = world.objects(fault_of(checkpoint, part=world.rank, of=world.size))
            fault = next((one for one in faults if one is not None), None)
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
        files = {f"{name}.safetensors": describe(fresh / f"{name}.safetensors") for name in contents}
        write_manifest(fresh, {**self._numbers(), "optimizers": numbers, "files": files})

    def _numbers(self) -> dict[str, Any]:
        """What the manifest says of the state, beside files and tensors."""
        numbers: dict[str, Any] = {"samples": self.samples, "steps": self.steps}
        if self.best is not None:
            numbers[BEST] = {"loss": self.best.loss, "samples": self.best.samples}
        return numbers

    def _read(self, checkpoint: Path) -> None:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        if manifest.get("format") == "sharded":
            self._read_shards(checkpoint, manifest)
        else:
            self._read_whole(checkpoint, manifest)
        self.samples, self.steps = manifest["samples"], manifest["steps"]

    def _read_whole(self, checkpoint: Path, manifest: dict[str, Any]) -> None:
        """Read a single process's checkpoint."""
        model, ema, tensors = (load_file(checkpoint / f"{name}.safetensors") for name in PARTS)
        put(self.model.state_dict(), self._named(model))
        put(self.ema.average, self._named(ema))
        states = _unflatten(tensors, manifest["optimizers"])
        for optimizer, state in zip(self.optimizers, states, strict=True):
            for number, (_, parameter) in enumerate(self._parameters(optimizer)):
                if number in state["state"]:
                    optimizer.state[parameter] = {
                        name: laid_out(value, parameter) for name, value in state["state"][number].items()
                    }
        if BEST in manifest:
            average = copy_of(self.ema.average)
            put(average, self._named(load_file(checkpoint / f"{BEST}.safetensors")))
            self.best = Best(**manifest[BEST], average=average)

    def _read_shards(self, checkpoint: Path, manifest: dict[str, Any]) -> None:
        """Read the shards of several processes, of each what this one holds."""
        from unclip.train.sharded_checkpoint import read, shapes

        found = shapes(checkpoint)
        states: list[dict[nn.Parameter, dict[str, Tensor]]] = []
        for index, optimizer in enumerate(self.optimizers):
            parameters, prefix = dict(self._parameters(optimizer)), f"optimizers/{index}/"
            moments: dict[nn.Parameter, dict[str, Tensor]] = {}
            for key, (shape, kind) in found.items():
                if key.startswith(prefix):
                    moment, name = key.removeprefix(prefix).split("/")
                    parameter = parameters[name]
                    if shape == parameter.shape:
                        empty = torch.empty_like(parameter, dtype=kind, requires_grad=False)
                    else:
                        empty = torch.empty(shape, dtype=kind, device=parameter.device)
                    moments.setdefault(parameter, {})[moment] = empty
            states.append(moments)
        best = copy_of(self.ema.average) if BEST in manifest else None
        read(checkpoint, self._by_name(states, best), self.world)
        for optimizer, moments in zip(self.optimizers, states, strict=True):
            for parameter, values in moments.items():
                optimizer.state[parameter] = values
        if best is not None:
            self.best = Best(**manifest[BEST], average=best)

    def _by_name(
        self,
        states: "list[dict[nn.Parameter, dict[str, Tensor]]] | None" = None,
        best: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Every tensor of the state by a name that depends on no layout; moments and best average as given, or the own."""
        if best is None and self.best is not None:
            best = self.best.average
        found = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        found |= {f"ema/{name}": value for name, value in self.ema.average.items()}
        found |= {f"{BEST}/{name}": value for name, value in (best or {}).items()}
        for index, optimizer in enumerate(self.optimizers):
            state: Any = optimizer.state if states is None else states[index]
            for name, parameter in self._parameters(optimizer):
                for moment, value in state.get(parameter, {}).items():
                    found[f"optimizers/{index}/{moment}/{name}"] = value
        return found

    def _parameters(self, optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
        """An optimiser's parameters with their names, in the order in which a single process numbers them."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        places = {parameter: place for place, parameter in enumerate(names)}
        # Matrices come first, as in a single process's groups. Shards have further groups for what is kept whole.
        found = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        found.sort(key=lambda parameter: (parameter.ndim < 2, places[parameter]))
        return [(names[parameter], parameter) for parameter in found]

    def _named(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights by this version's names: checkpoints of 0.1 have the network's, without that of the task."""
        if weights.keys() == self.model.state_dict().keys():
            return weights
        return {f"network.{name}": weight for name, weight in weights.items()}


def laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole moment of a parameter, as optimisers keep it: on its device, in its memory's order, or in shards like it."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    # Fused steps walk plain memory, so moments of a channels-last weight must be channels-last as well; files are not.
    empty = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
    put({"": empty}, {"": value})
    return empty


def put(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into those of their names, of which each process may hold shards. Raises ValueError for other names."""
    if targets.keys() != values.keys():
        other = sorted(targets.keys() ^ values.keys())
        raise ValueError(f"the checkpoint is of another network: {other[0]} is in one of them only")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(_like(values[name], target))


def _like(value: Tensor, target: Tensor) -> Tensor:
    if not is_sharded(target):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    # Every process has read the whole tensor, and keeps its part.
    return distribute_tensor(
        value.to(target.device), target.device_mesh, target.placements, src_data_rank=None
    )


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
