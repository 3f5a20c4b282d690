"""Checkpoints of two processes that fail half-way, by a full disk and by `kill -9`; writes down what was there afterwards.

python -c "import checkpoint_faults; checkpoint_faults.main('FOLDER')"
"""

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import free_port

from unclip.disk import DiskFull
from unclip.train import sharded_checkpoint
from unclip.train.ema import Ema
from unclip.train.sharded_checkpoint import CheckpointFailed
from unclip.train.state import TrainingState
from unclip.train.world import World, open_world


def state_of(world: World) -> TrainingState:
    """A small network with its average and its optimiser, whole in each process."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))
    return TrainingState(net, Ema(net, 0.9), [torch.optim.AdamW(net.parameters())], world)


def train_to(state: TrainingState, samples: int) -> None:
    """One step of training."""
    state.model(torch.full((2, 64), 1.0)).square().mean().backward()
    state.optimizers[0].step()
    state.samples, state.steps = samples, state.steps + 1


def save(state: TrainingState, folder: Path) -> str:
    """What kept a checkpoint from being written, or nothing."""
    try:
        state.save(folder, keep=3)
        state.close()
    except (DiskFull, CheckpointFailed) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def names(folder: Path) -> list[str]:
    """What lies in the folder of checkpoints."""
    return sorted(one.name for one in folder.iterdir())


def full(world: World, folder: Path) -> None:
    """A checkpoint, one for which process 1 has no room, and one more."""
    state = state_of(world)
    train_to(state, 8)
    first = save(state, folder / "full")
    train_to(state, 16)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if world.rank == 1:
        # The system's answer is an error, as that of a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    second = save(state, folder / "full")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    world.barrier()
    between = names(folder / "full")
    other = state_of(world)
    loaded = other.load_newest(folder / "full")
    world.barrier()
    train_to(state, 24)
    third = save(state, folder / "full")
    found = {
        "messages": [first, second, third],
        "between": between,
        "loaded": loaded and loaded.name,
        "samples": other.samples,
        "after": names(folder / "full"),
    }
    (folder / f"full-{world.rank}.json").write_text(json.dumps(found))


def killed(world: World, folder: Path) -> None:
    """A checkpoint, and one in the middle of which process 1 is killed."""
    state = state_of(world)
    train_to(state, 8)
    save(state, folder / "killed")
    torch.save(state.model.state_dict(), folder / f"killed-{world.rank}.pt")
    train_to(state, 16)
    if world.rank == 1:
        # The first half of its file is there.
        def half(path: Path) -> dict[str, Any]:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            return {}

        sharded_checkpoint.describe = half
    try:
        save(state, folder / "killed")
    except BaseException as error:
        (folder / f"killed-{world.rank}.json").write_text(json.dumps(f"{type(error).__name__}: {error}"))
        # The group cannot be ended without the other process.
        os._exit(0)


def goes_on(world: World, folder: Path) -> None:
    """What a new group, or a single process, finds after that, and its next checkpoint."""
    before = names(folder / "killed")
    world.barrier()
    state = state_of(world)
    loaded = state.load_newest(folder / "killed")
    expected = torch.load(folder / "killed-0.pt", weights_only=True)
    same = all(torch.equal(value, expected[name]) for name, value in state.model.state_dict().items())
    world.barrier()
    train_to(state, 16 + 8 * world.size)
    message = save(state, folder / "killed")
    found = {"before": before, "loaded": loaded and loaded.name, "same": same, "message": message}
    found["after"] = names(folder / "killed")
    (folder / f"goes-on-{world.size}-{world.rank}.json").write_text(json.dumps(found))


def in_processes(size: int, work: Callable[[World, Path], None], folder: Path) -> list[int]:
    """Exit statuses of `work` in as many forks."""
    port, children = free_port(), []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if size > 1:
                    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                with open_world("cpu", timeout=300) as world:
                    work(world, folder)
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main(name: str) -> None:
    """Both faults; after the second, a group and a single process go on."""
    torch.set_num_threads(1)
    folder = Path(name)
    statuses = [in_processes(2, full, folder), in_processes(2, killed, folder)]
    statuses += [in_processes(size, goes_on, folder) for size in (2, 1)]
    (folder / "statuses.json").write_text(json.dumps(statuses))
