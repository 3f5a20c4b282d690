"""The processes of a run: rank, size, and what they exchange. One process without a process group is the trivial case.

`open_world` takes the process group that exists, else the one that the environment describes (torchrun, SLURM, or any
launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT), else none. A reader of the loop can skip this file:
with one process every method returns what it was given.
"""

import gc
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")


class ProcessFailed(RuntimeError):
    """Another process failed; the message is its own."""


class World:
    """The processes that train one model together.

    `rank` is this process's number among `size`, `local_rank` its number on its machine, `device` what it computes on.
    Small values travel through a group of their own on the CPU (`control`), so that no GPU waits for them.
    """

    def __init__(self, device: torch.device | str = "cpu", *, timeout: float = 1800.0):
        self.device, self.timeout = torch.device(device), timedelta(seconds=timeout)
        there = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if there else (0, 1)
        self.control: Any = dist.new_group(backend="gloo", timeout=self.timeout) if self.size > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether this process writes what is written once: metrics, previews, manifests, the model."""
        return self.rank == 0

    def sum(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The sum over processes, on the device."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag, whether any process has it set."""
        if self.size == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return [bool(flag) for flag in found]

    def objects(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns in the main process. Where it raises there, the others raise `ProcessFailed`."""
        if self.size == 1:
            return make()
        sent: list[Any] = [None, None]
        failure: BaseException | None = None
        if self.is_main:
            try:
                sent[0] = make()
            except BaseException as error:
                failure, sent[1] = error, f"{type(error).__name__}: {error}"
        dist.broadcast_object_list(sent, src=0, group=self.control)
        if failure is not None:
            raise failure
        if sent[1] is not None:
            raise ProcessFailed(sent[1])
        return sent[0]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Context that the main process passes before the others: these find on disk what it wrote there."""
        if not self.is_main:
            self.barrier()
        try:
            yield
        finally:
            if self.is_main:
                self.barrier()

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier(group=self.control)

    def close(self) -> None:
        """End the group of small values; the world is not used after that."""
        if self.control is not None:
            dist.destroy_process_group(self.control)
            self.control = None

    def divide(self, numbers: Int64[np.ndarray, " b"]) -> "Division":
        """How consecutive sample numbers are divided: one part for each process, sizes as equal as can be."""
        counts = tuple(len(part) for part in np.array_split(numbers, self.size))
        return Division(counts, self.rank)


@dataclass(frozen=True)
class Division:
    """A micro-batch divided among processes: `counts[r]` of its samples, in their order, are rank r's.

    A process that gets none computes the first sample with weight zero, since all of them take part in each exchange.
    """

    counts: tuple[int, ...] = (1,)
    rank: int = 0

    @property
    def size(self) -> int:
        """The number of processes."""
        return len(self.counts)

    @property
    def first(self) -> int:
        """Place of this process's first sample in the micro-batch."""
        return sum(self.counts[: self.rank])

    @property
    def count(self) -> int:
        """This process's number of samples."""
        return self.counts[self.rank]

    @property
    def share(self) -> float:
        """This process's share of the samples."""
        return self.count / sum(self.counts)

    def part(self, numbers: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " _"]:
        """This process's sample numbers, of all of the micro-batch's."""
        return numbers[self.first : self.first + self.count] if self.count else numbers[:1]

    def gather(self, rows: Tensor) -> Tensor:
        """All processes' rows, in the order of samples. Gradients return to the process that a row came from."""
        return rows if self.size == 1 else _Gather.apply(rows, self)  # pyright: ignore[reportReturnType]

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' values; without gradients."""
        if self.size == 1:
            return values
        found = values.detach().clone()
        dist.all_reduce(found)
        return found

    def from_previous(self, rows: Tensor, steps: int) -> Tensor:
        """The rows that the process `steps` before this one in the ring has; gradients return to it.

        All processes' rows must have one shape: see `padded`.
        """
        return _Shift.apply(rows, self, steps)  # pyright: ignore[reportReturnType]

    def padded(self, rows: Tensor) -> Tensor:
        """This process's rows, followed by zeros up to the largest count of any process."""
        rows, most = rows[: self.count], max(self.counts)
        return torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])


def _collective(name: str, older: str) -> Callable[[Tensor, Tensor], Any]:
    """A function of `torch.distributed`, which older versions of PyTorch call by another name."""
    return getattr(dist, name, None) or getattr(dist, older)


class _Gather(torch.autograd.Function):
    """all-gather of rows; backward is the sum of all processes' gradients of one's own rows (reduce-scatter)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, division: Division) -> Tensor:
        ctx.division, ctx.given = division, len(rows)
        padded = division.padded(rows)
        found = padded.new_empty(division.size * len(padded), *padded.shape[1:])
        _collective("all_gather_single", "all_gather_into_tensor")(found, padded.contiguous())
        parts = found.split(len(padded))
        return torch.cat([part[:count] for part, count in zip(parts, division.counts)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        division: Division = ctx.division
        most = max(division.counts)
        parts = gradients[0].split(list(division.counts))
        whole = torch.cat(
            [torch.cat([part, part.new_zeros(most - len(part), *part.shape[1:])]) for part in parts]
        )
        own = whole.new_empty(most, *whole.shape[1:])
        _collective("reduce_scatter_single", "reduce_scatter_tensor")(own, whole.contiguous())
        own = own[: division.count]
        return torch.cat([own, own.new_zeros(ctx.given - len(own), *own.shape[1:])]), None


class _Shift(torch.autograd.Function):
    """Rows sent `steps` places along the ring of processes; gradients are sent back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, division: Division, steps: int) -> Tensor:
        ctx.division, ctx.steps = division, steps
        return _exchange(rows, division, steps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _exchange(gradients[0], ctx.division, -ctx.steps), None, None


def _exchange(rows: Tensor, division: Division, steps: int) -> Tensor:
    """The rows of the process `steps` before this one."""
    if steps % division.size == 0:
        return rows.clone()
    found = torch.empty_like(rows, memory_format=torch.contiguous_format)
    onto, source = ((division.rank + sign * steps) % division.size for sign in (1, -1))
    transfers = [
        dist.P2POp(dist.isend, rows.contiguous(), onto),
        dist.P2POp(dist.irecv, found, source),
    ]
    for request in dist.batch_isend_irecv(transfers):
        request.wait()
    return found


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is spread over processes (a `DTensor`, whose module is not imported for that)."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds; changes of it change the tensor."""
    return getattr(tensor, "to_local")() if is_sharded(tensor) else tensor  # noqa: B009


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, from all processes that hold a part; each of them must ask for it."""
    return getattr(tensor, "full_tensor")() if is_sharded(tensor) else tensor  # noqa: B009


class Place(NamedTuple):
    """Where a launcher started this process."""

    rank: int
    size: int
    local_rank: int


def place_of(environment: "os._Environ[str] | dict[str, str]") -> Place | None:
    """The place that a launcher's variables describe: torchrun's, or those of SLURM's srun; None without any."""
    if "WORLD_SIZE" in environment and "RANK" in environment:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        return Place(rank, size, int(environment.get("LOCAL_RANK", rank)))
    # srun sets it for the tasks that it starts; a shell in an allocation is no group.
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return Place(
            int(environment["SLURM_PROCID"]),
            int(environment["SLURM_STEP_NUM_TASKS"]),
            int(environment.get("SLURM_LOCALID", "0")),
        )
    return None


@contextmanager
def open_world(device: str | None = None, *, timeout: float = 1800.0) -> Iterator[World]:
    """The world of this process; a process group that it had to begin ends with it.

    device: "cuda" is the GPU of the process's local rank; None takes a GPU if there is one. `timeout` in seconds is how long
    processes wait for each other.
    """
    place = place_of(os.environ)
    begun = False
    if dist.is_available() and dist.is_initialized():
        current = torch.cuda.current_device() if torch.cuda.is_available() else 0
        on_node = int(os.environ.get("LOCAL_RANK", current))
        place = Place(dist.get_rank(), dist.get_world_size(), on_node)
    chosen = local_device(device, place)
    if chosen.type == "cuda" and place is not None:
        torch.cuda.set_device(chosen)
    if place is not None and not dist.is_initialized():
        os.environ.setdefault("MASTER_ADDR", _first_host(os.environ.get("SLURM_JOB_NODELIST", "")))
        os.environ.setdefault("MASTER_PORT", str(20_000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20_000))
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        waiting = timedelta(seconds=timeout)
        store, *_ = next(rendezvous("env://", place.rank, place.size, timeout=waiting))
        store = fresh_store(store, place.rank, place.size, timeout)
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=waiting)
        begun = True
    world = World(chosen, timeout=timeout)
    try:
        yield world
    finally:
        world.close()
        if begun:
            dist.destroy_process_group()
            _settle()


def _settle() -> None:
    """Let gloo's threads release the tensors of the last exchange.

    They need Python's lock for that. Where they ask for it while the interpreter ends, the process aborts (see
    https://github.com/pytorch/pytorch/pull/179291). Groups that nothing refers to end their threads here; DDP never lets go of its
    group, so its threads get a moment without the lock.
    """
    gc.collect()
    time.sleep(0.1)


def fresh_store(store: Any, rank: int, size: int, timeout: float) -> Any:
    """The part of `store` that only the processes of this attempt use.

    A launcher that starts processes again may keep its store, with the addresses of the processes that died. So rank 0 chooses a
    name, sends it to each rank that asks with a fresh word, and waits until each rank has taken it: what died asks no more.
    """
    ends = time.monotonic() + timeout
    name, word = secrets.token_hex(8), secrets.token_hex(8)
    if rank:
        store.set(f"unclip/asks/{rank}", word)
        name = store.get(f"unclip/answers/{word}").decode()
        store.set(f"unclip/takes/{name}/{rank}", "")
        return PrefixStore(f"unclip/{name}", store)
    missing = set(range(1, size))
    while missing:
        for other in sorted(missing):
            if store.check([f"unclip/takes/{name}/{other}"]):
                missing.discard(other)
            elif store.check([f"unclip/asks/{other}"]):
                store.set(f"unclip/answers/{store.get(f'unclip/asks/{other}').decode()}", name)
        if time.monotonic() > ends:
            raise TimeoutError(f"processes {sorted(missing)} of {size} did not come within {timeout:.0f} s")
        time.sleep(0.01)
    return PrefixStore(f"unclip/{name}", store)


def local_device(name: str | None, place: Place | None) -> torch.device:
    """The device of that name, or else a GPU if there is one; with several processes, each has its own GPU."""
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None and place is not None:
        # Some launchers show each process only its own GPU.
        return torch.device("cuda", place.local_rank % torch.cuda.device_count())
    return device


def _first_host(nodes: str) -> str:
    """The first host of a list in SLURM's notation, such as "gpu[003-010,012],login1"; "127.0.0.1" without one."""
    if not nodes:
        return "127.0.0.1"
    try:
        found = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        )
        return found.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        head = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
        return nodes if head is None else head[1] + (head[2] or "")
