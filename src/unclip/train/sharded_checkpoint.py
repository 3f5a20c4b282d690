"""Checkpoints that all processes write together, each its shards, while training goes on.

They are PyTorch's distributed checkpoints (DCP) in safetensors files, so that no pickle is read: any number of processes
in any layout loads them. As with a single process's, the manifest comes last and the folder gets its name after that.
"""

import json
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from unclip.disk import disk_full, is_full
from unclip.train.checkpoint_files import MANIFEST, ROOM, describe, prune, sync, write_manifest
from unclip.train.world import World, is_sharded, local

FORMAT = "sharded"


class CheckpointFailed(RuntimeError):
    """A checkpoint could not be written; the earlier ones are good."""


class ShardedWriter:
    """Writes checkpoints on a thread of its own, one at a time."""

    def __init__(self, world: World):
        self.world = world
        # What the thread exchanges must not meet what training exchanges.
        self._group: Any = dist.new_group(backend="gloo", timeout=world.timeout)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unclip-checkpoint")
        self._pending: Future[None] | None = None

    def save(
        self, target: Path, tensors: Mapping[str, Tensor], numbers: dict[str, Any], *, keep: int
    ) -> None:
        """Copy the tensors, which may change then, and begin to write them to `target` as soon as the last save ended."""
        self.wait()
        staged = _staged(tensors)
        self._pending = self._executor.submit(self._write, target, staged, numbers, keep)

    def wait(self) -> None:
        """Wait for the checkpoint that is being written. Raises what kept it from being written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait, and end the thread and its group."""
        try:
            self.wait()
        finally:
            self._executor.shutdown()
            dist.destroy_process_group(self._group)

    def _write(self, target: Path, tensors: dict[str, Tensor], numbers: dict[str, Any], keep: int) -> None:
        fresh = target.with_name(f".writing-{target.name}")
        if self.world.is_main:
            for leftover in target.parent.glob(".writing-*"):
                shutil.rmtree(leftover)
            fresh.mkdir(parents=True)
        dist.barrier(group=self._group)
        try:
            writer = HuggingFaceStorageWriter(str(fresh), save_distributed=True)
            save(tensors, storage_writer=writer, process_group=self._group)
        except CheckpointException as error:
            if self.world.is_main:
                shutil.rmtree(fresh, ignore_errors=True)
            raise _failure(error, target, tensors) from None
        # Each process checks what it wrote; its number is in the names.
        own = sorted(fresh.glob(f"shard-{self.world.rank + 1:05d}-*"))
        found: list[Any] = [None] * self.world.size
        dist.all_gather_object(found, {file.name: describe(file) for file in own}, group=self._group)
        outcome: list[str | None] = [None]
        if self.world.is_main:
            try:
                files = {name: entry for part in found for name, entry in part.items()}
                write_manifest(fresh, {"format": FORMAT, **numbers, "files": files})
                if target.exists():
                    shutil.rmtree(target)
                fresh.rename(target)
                sync(target.parent)
                prune(target, keep)
            except OSError as error:
                outcome[0] = str(error)
        dist.broadcast_object_list(outcome, src=0, group=self._group)
        if outcome[0] is not None:
            raise CheckpointFailed(f"{target} was not written: {outcome[0]}")


def read(checkpoint: Path, targets: Mapping[str, Tensor], world: World) -> None:
    """Fill `targets` with the checkpoint's tensors of their names, each process the parts that it holds."""
    reader, alone = HuggingFaceStorageReader(str(checkpoint)), world.size == 1
    with warnings.catch_warnings():
        # A single process is meant to load alone.
        warnings.filterwarnings("ignore", message="torch.distributed is", category=UserWarning)
        load(dict(targets), storage_reader=reader, process_group=world.control, no_dist=alone)


def shapes(checkpoint: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Name -> shape and type of the checkpoint's tensors, put together from all files."""
    metadata = HuggingFaceStorageReader(str(checkpoint)).read_metadata().state_dict_metadata
    return {name: (entry.size, entry.properties.dtype) for name, entry in metadata.items()}  # pyright: ignore[reportAttributeAccessIssue]


def is_sharded_checkpoint(checkpoint: Path) -> bool:
    """Whether a checkpoint whose manifest verifies is one of this format."""
    return json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8")).get("format") == FORMAT


def _staged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the host's memory."""
    shards = {name: value.detach() for name, value in tensors.items() if is_sharded(value)}
    options = StagingOptions(
        use_pinned_memory=torch.cuda.is_available(),
        use_shared_memory=False,
        use_async_staging=False,
        use_non_blocking_copy=torch.cuda.is_available(),
    )
    stager = DefaultStager(options)
    staged: Any = stager.stage(shards)
    copies: dict[str, Tensor] = dict(staged)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    stager.close()
    for name, value in tensors.items():
        if name not in copies:
            copies[name] = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
    return copies


def _failure(error: CheckpointException, target: Path, tensors: Mapping[str, Tensor]) -> Exception:
    """What DCP's error says, in one line; its cause may be one of several processes'."""
    causes = [cause for cause, _ in error.failures.values()]
    if any(is_full(cause) for cause in causes):
        size = sum(local(tensor).nbytes for tensor in tensors.values())
        return disk_full(target, size, what="this process's part of the checkpoint", remedy=ROOM)
    ranks = ", ".join(str(rank) for rank in error.failures)
    return CheckpointFailed(f"{target} was not written: {causes[0]!r} in process {ranks}")
