"""Trains small runs in many ways, in groups of processes, and writes down what each saw and ended with.

    python cases.py FOLDER

One process imports everything and forks the groups: 1, 2, then 4 processes, which talk by gloo, then 1 again. The runs of a
group follow each other in one process group. Each leaves FOLDER/NAME/final.safetensors (weights, average and moments) and
seen-RANK.json (the sample numbers of each step). `test_matrix.py` compares them.
"""

import faulthandler
import json
import math
import os
import shutil
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from unclip import recipes
from unclip.config import override
from unclip.train.interrupt import Interrupted
from unclip.train.loop import NonFiniteLoss, Run, build_on_all, train
from unclip.train.run_folder import RunFolder
from unclip.train.world import World, open_world, whole

HALF = 24
POISONED = 11
SAMPLES = 50
"""The last batch has two samples: two of four processes have none."""

NETS = {
    "clip": [
        "model.embedding=8",
        "model.vision.width=16",
        "model.vision.layers=2",
        "model.text.width=16",
        "model.text.layers=2",
        "vocabulary=540",
    ],
    "prior": ["model.width=16", "model.layers=2"],
    "decoder": [
        "model.net.channels=8",
        "model.net.vector_width=32",
        "model.net.head_channels=8",
        "model.net.context_width=8",
        "model.net.groups=4",
        "model.caption.width=8",
    ],
    "upsampler": ["model.net.channels=8", "model.net.groups=4"],
}

# Adam divides by the gradient's size; a large epsilon keeps the rounding of sums from being blown up by that. Muon's
# iteration is bfloat16, and makes all singular values of an update alike, those that are rounding alone too.
COMMON = [
    "optimizer.epsilon=0.01",
    "batch=12",
    f"samples={SAMPLES}",
    "prefetch=0",
    "checkpoint_seconds=1e9",
    "precision=fp32",
]
STAGES: dict[str, tuple[str, list[str]]] = {
    "clip": ("clip", ["optimizer.muon_learning_rate=null"]),
    "sigmoid": ("clip", ["optimizer.muon_learning_rate=null", "model.loss=sigmoid", "micro_batch=7"]),
    "muon": ("clip", ["optimizer.muon_learning_rate=0.01"]),
    "prior": (
        "prior",
        ["optimizer.muon_learning_rate=null", "micro_batch=8", "keep=best", "validate_every=24"],
    ),
    "decoder": ("decoder", ["optimizer.muon_learning_rate=null", "parallel.activation_checkpointing=true"]),
    "upsampler": ("upsampler", ["optimizer.muon_learning_rate=null"]),
}
STAGES_BF16 = {"bf16": ("clip", ["optimizer.muon_learning_rate=null", "precision=bf16"])}
LAYOUTS = {
    "ddp": ["parallel.layout=ddp"],
    "fsdp": ["parallel.layout=fsdp"],
    "rounded": ["parallel.layout=fsdp", "parallel.reduce=bf16"],
    "hsdp": ["parallel.layout=fsdp", "parallel.replicas=2"],
}


class Recorded(Run):
    """A run that notes the numbers of the samples that its steps read."""

    seen: list[list[int]]
    stepping = False

    def step(self) -> dict[str, float]:
        """One step, noted."""
        self.stepping = True
        try:
            return super().step()
        finally:
            self.stepping = False

    def _batch(self, numbers: np.ndarray) -> Any:
        if self.stepping:
            self.seen.append(numbers.tolist())
        return super()._batch(numbers)


class Cases:
    """The runs in one folder."""

    def __init__(self, folder: Path, world: World):
        self.folder, self.world = folder, world

    def config(self, case: str, name: str, layout: str) -> Any:
        """The config of a case's run called `name`."""
        stage, changes = {**STAGES, **STAGES_BF16}[case]
        given = [*NETS[stage], *COMMON, *changes, *LAYOUTS[layout]]
        given += [f"out={self.folder / case / name}", f"data.cache={self.folder / 'cache'}"]
        if stage in ("prior", "decoder"):
            given.append(f"clip={self.folder / 'encoder'}")
        return override(recipes.get("tiny", stage), given)

    def run(self, config: Any) -> Recorded:
        """A run, at its start or its newest checkpoint."""
        with self.world.main_first():
            folder = RunFolder(config, main=self.world.is_main)
        run = Recorded(config, build_on_all(config, self.world), self.world.device, folder, self.world)
        run.seen = []
        return run

    def straight(self, case: str, layout: str) -> None:
        """From start to end."""
        self.finish(self.run(self.config(case, self.name(layout), layout)), [])

    def resumed(self, case: str, layout: str) -> None:
        """To the half, and by a new run from its checkpoint to the end."""
        config = self.config(case, f"{self.name(layout)}-resumed", layout)
        first = self.run(config)
        first.go(until=HALF)
        if self.world.is_main:
            shutil.copytree(first.folder.path, self.folder / case / f"{self.name(layout)}-half")
        self.world.barrier()
        self.finish(self.run(config), first.seen)

    def taken_over(self, case: str, layout: str, half: str) -> None:
        """From the half of another layout or number of processes to the end."""
        name = f"{half}-to-{self.name(layout)}"
        if self.world.is_main:
            shutil.copytree(self.folder / case / f"{half}-half", self.folder / case / name)
        self.world.barrier()
        self.finish(self.run(self.config(case, name, layout)), [])

    def poisoned(self, case: str, layout: str) -> None:
        """A run of which one process reads a picture that is not finite: what every process says, and its weights."""
        run = self.run(self.config(case, f"{self.name(layout)}-poisoned", layout))
        source, squares = run.batches.train, run.batches.train.squares
        key = source.key(POISONED)

        def poison(indices: Any, corner: Any, side: int) -> torch.Tensor:
            found = squares(indices, corner, side)
            if self.world.rank == 1:
                found[[source.decoded.samples[index].key == key for index in indices]] = math.nan
            return found

        source.squares = poison
        before = {name: whole(value).clone() for name, value in run.state.model.state_dict().items()}
        try:
            run.go()
            said = "nothing"
        except NonFiniteLoss as error:
            said = str(error)
        after = {name: whole(value) for name, value in run.state.model.state_dict().items()}
        same = all(torch.equal(before[name], after[name]) for name in before)
        told = {"said": said, "key": key, "unchanged": same, "samples": run.state.samples}
        (run.folder.path / f"told-{self.world.rank}.json").write_text(json.dumps(told))
        self.world.barrier()

    def stopped(self, case: str, layout: str) -> None:
        """A run of which one process is asked to stop after the second step; what all of them did."""
        run = self.run(self.config(case, f"{self.name(layout)}-stopped", layout))
        step = run.step

        def asked() -> dict[str, float]:
            found = step()
            if run.state.samples == HALF and self.world.rank == 1:
                signal.raise_signal(signal.SIGTERM)
            return found

        run.step = asked
        try:
            run.go()
            said = "nothing"
        except Interrupted as error:
            said = str(error)
        (run.folder.path / f"told-{self.world.rank}.json").write_text(json.dumps({"said": said}))
        self.world.barrier()

    def finish(self, run: Recorded, before: list[list[int]]) -> None:
        """The rest of the run, and what it ended with."""
        path = run.folder.path
        run.finish()
        found = {name: whole(value.detach()).contiguous() for name, value in run.state._by_name().items()}
        (path / f"seen-{self.world.rank}.json").write_text(json.dumps([*before, *run.seen]))
        if self.world.is_main:
            save_file({name: value.clone() for name, value in found.items()}, path / "final.safetensors")
        self.world.barrier()

    def name(self, layout: str) -> str:
        """A layout with its number of processes: "ddp2"."""
        return f"{layout}{self.world.size}" if self.world.size > 1 else "single"


def group_of_one(cases: Cases) -> None:
    """The runs to compare with."""
    encoder = override(
        recipes.get("tiny", "clip"),
        [
            *NETS["clip"],
            "samples=16",
            "batch=8",
            f"out={cases.folder / 'encoder'}",
            f"data.cache={cases.folder / 'cache'}",
        ],
    )
    train(encoder, device="cpu")
    for case in STAGES:
        cases.straight(case, "ddp")
        cases.resumed(case, "ddp")
    cases.straight("bf16", "ddp")


def group_of_two(cases: Cases) -> None:
    """Every stage in both layouts."""
    for case in STAGES:
        for layout in ("ddp", "fsdp"):
            cases.straight(case, layout)
            cases.resumed(case, layout)
        cases.taken_over(case, "fsdp", "single")
        cases.taken_over(case, "ddp", "fsdp2")
    cases.straight("bf16", "rounded")
    cases.resumed("bf16", "rounded")
    for layout in ("ddp", "fsdp"):
        cases.poisoned("upsampler", layout)
        cases.stopped("upsampler", layout)


def group_of_four(cases: Cases) -> None:
    """Some stages in all layouts, going on from other groups' halves."""
    for case in ("clip", "sigmoid", "muon", "upsampler"):
        for layout in ("ddp", "fsdp", "hsdp"):
            cases.straight(case, layout)
            cases.resumed(case, layout)
        cases.taken_over(case, "fsdp", "ddp2")
        cases.taken_over(case, "ddp", "fsdp2")


def group_of_one_again(cases: Cases) -> None:
    """A single process goes on from the halves of groups."""
    for case in STAGES:
        cases.taken_over(case, "ddp", "ddp2")
        cases.taken_over(case, "ddp", "fsdp2")
    for case in ("clip", "sigmoid", "muon", "upsampler"):
        cases.taken_over(case, "ddp", "hsdp4")


GROUPS = ((1, group_of_one), (2, group_of_two), (4, group_of_four), (1, group_of_one_again))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def in_processes(size: int, work: Any, folder: Path) -> None:
    """Run `work` in as many forks, told of each other by the environment as torchrun does; all must succeed."""
    port, children = free_port(), []
    logs = [folder / f"{work.__name__}-{rank}.log" for rank in range(size)]
    for rank, log in enumerate(logs):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            faulthandler.enable()
            os._exit(status_of(size, rank, port, work, folder))
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(statuses):
        # The first failure is the cause of the others.
        for log in sorted(logs, key=lambda log: log.stat().st_mtime, reverse=True):
            sys.stderr.write(f"--- {log.name}\n{log.read_text()[-2000:]}\n")
        raise SystemExit(f"{work.__name__}: exit statuses {statuses}")


def status_of(size: int, rank: int, port: int, work: Any, folder: Path) -> int:
    """Run `work` as process `rank`; 0 if it succeeded."""
    torch.set_num_threads(1)
    if size > 1:
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    try:
        with open_world("cpu", timeout=300) as world:
            assert (world.rank, world.size) == (rank, size)
            try:
                work(Cases(folder, world))
            except BaseException:
                # Before the group ends: that may abort where another process waits in it.
                traceback.print_exc()
                sys.stderr.flush()
                raise
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    for count, group in GROUPS:
        in_processes(count, group, Path(sys.argv[1]))
