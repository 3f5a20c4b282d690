"""Trains small runs in many ways, in groups of processes, and writes down what each saw and ended with.

    python -c "import cases; cases.main('FOLDER', 'quick')"

One process imports everything and forks the groups: 1, 2, then 4 processes, which talk by gloo, then 1 again. The runs of a
group follow each other in one process group; two halves of the cases go on side by side. Each run leaves
FOLDER/CASE/NAME/held-RANK.safetensors (what a process holds of weights, average and moments), weights.safetensors (whole)
and seen-RANK.json (the sample numbers of each step). `test_matrix.py` compares them.
"""

import faulthandler
import importlib
import json
import math
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from unclip import recipes
from unclip.config import override
from unclip.networks.adapter import AdapterConfig
from unclip.train.interrupt import Interrupted
from unclip.train.loop import NonFiniteLoss, Run, build_on_all, train
from unclip.train.run_folder import RunFolder
from unclip.train.world import World, local, open_world, whole

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
    "upsampler": ["model.net.channels=8", "model.net.groups=4", "model.net.multiples=[1]"],
    "autoencoder": ["model.channels=8", "model.groups=4", "discriminator.channels=8"],
}
NETS["latent_decoder"] = NETS["decoder"]
NETS["prior_autoregressive"] = NETS["prior"]
NETS["text_decoder"] = ["model.net.channels=8", "model.net.groups=4"]
NETS["kandinsky_decoder"] = [*NETS["text_decoder"], "model.net.head_channels=8", "model.net.vector_width=32"]

# Adam divides by the gradient's size; a large epsilon keeps the rounding of sums from being blown up by that.
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
    "muon": ("clip", ["optimizer.muon_learning_rate=0.01", "optimizer.muon_precision=fp32"]),
    "prior": (
        "prior",
        ["optimizer.muon_learning_rate=null", "micro_batch=8", "keep=best", "validate_every=24"],
    ),
    # The net drops features, and computes its blocks again in the backward pass.
    "decoder": ("decoder", ["model.net.dropout=0.3", "parallel.activation_checkpointing=true"]),
    "upsampler": ("upsampler", []),
    # With a discriminator, from the second step on.
    "autoencoder": (
        "autoencoder",
        [
            "model.dropout=0.2",
            "discriminator_start=12",
            "discriminator_optimizer.epsilon=0.01",
            "discriminator.norm=batch",
        ],
    ),
    "latent": ("latent_decoder", ["model.net.dropout=0.1"]),
    "autoregressive": ("prior_autoregressive", ["optimizer.muon_learning_rate=null"]),
    "text": ("text_decoder", []),
    "kandinsky": ("kandinsky_decoder", []),
    # Beside the frozen weights of the upsampler's run.
    "adapter": ("upsampler", ["optimizer.learning_rate=0.01"]),
}
STAGES_BF16 = {"bf16": ("clip", ["optimizer.muon_learning_rate=null", "precision=bf16"])}


@dataclass(frozen=True)
class Plan:
    """Which cases are trained, and how.

    halves: those that go on side by side; two: those that two processes train; four: that four train, too; hybrid: with HSDP.
    """

    halves: tuple[tuple[str, ...], tuple[str, ...]]
    two: tuple[str, ...]
    four: tuple[str, ...]
    hybrid: tuple[str, ...]


_FIRST, _SECOND = (
    ("clip", "sigmoid", "muon", "prior", "decoder"),
    ("upsampler", "adapter", "autoencoder", "latent"),
)
_REST = ("autoregressive", "text", "kandinsky")
PLANS = {
    "quick": Plan(
        halves=(_FIRST, _SECOND),
        two=(*_FIRST, *_SECOND),
        four=("clip", "sigmoid", "muon", "upsampler", "autoencoder"),
        hybrid=("clip", "upsampler"),
    ),
    # The other stages, and HSDP for all that the quick plan trains without it.
    "wide": Plan(
        halves=(("prior", "autoregressive", "decoder"), ("autoencoder", "latent", "text", "kandinsky")),
        two=_REST,
        four=(),
        hybrid=("prior", "decoder", "autoencoder", "latent", *_REST),
    ),
}
LAYOUTS = {
    "ddp": ["parallel.layout=ddp"],
    "fsdp": ["parallel.layout=fsdp"],
    "rounded": ["parallel.layout=fsdp", "parallel.reduce=bf16"],
    "hsdp": ["parallel.layout=fsdp", "parallel.replicas=2"],
}

IMPORTED = (
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "unclip.train.sharded_checkpoint",
    "torch.distributed.algorithms.ddp_comm_hooks.default_hooks",
)


class Recorded(Run):
    """A run that notes the numbers of the samples that its steps read."""

    seen: list[list[int]]
    stepping = drawing = False

    def step(self) -> dict[str, float]:
        """One step, noted."""
        self.stepping = True
        try:
            return super().step()
        finally:
            self.stepping = False

    def validate(self) -> None:
        """A validation, in runs that are not resumed: it leaves no trace in weights, unless the best ones are kept."""
        if self.drawing or self.config.keep == "best":
            super().validate()

    def preview(self) -> None:
        """A picture, in runs that are not resumed."""
        if self.drawing:
            super().preview()

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
        if stage not in ("clip", "upsampler"):
            given.append(f"clip={self.folder / 'encoder'}")
        if stage in ("latent_decoder", "text_decoder", "kandinsky_decoder"):
            given.append(f"autoencoder={self.folder / 'autoencoder' / 'single'}")
        config = override(recipes.get("tiny", stage), given)
        if case != "adapter":
            return config
        base = str(self.folder / "upsampler" / "single" / "model")
        return replace(config, init=base, adapter=AdapterConfig(rank=2, targets=r".*conv[12]"))

    def run(self, config: Any) -> Recorded:
        """A run, at its start or its newest checkpoint."""
        with self.world.main_first():
            folder = RunFolder(config, main=self.world.is_main)
        run = Recorded(config, build_on_all(config, self.world), self.world.device, folder, self.world)
        run.seen = []
        return run

    def straight(self, case: str, layout: str) -> None:
        """From start to end."""
        run = self.run(self.config(case, self.name(layout), layout))
        run.drawing = True
        self.finish(run, [])

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
        """A run of which one process reads a picture that is not finite: every process's message and weights."""
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
            message = "nothing"
        except NonFiniteLoss as error:
            message = str(error)
        after = {name: whole(value) for name, value in run.state.model.state_dict().items()}
        same = all(torch.equal(before[name], after[name]) for name in before)
        report = {"message": message, "key": key, "unchanged": same, "samples": run.state.samples}
        (run.folder.path / f"report-{self.world.rank}.json").write_text(json.dumps(report))
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
            message = "nothing"
        except Interrupted as error:
            message = str(error)
        (run.folder.path / f"report-{self.world.rank}.json").write_text(json.dumps({"message": message}))
        self.world.barrier()

    def finish(self, run: Recorded, before: list[list[int]]) -> None:
        """The rest of the run, and what it ended with."""
        path = run.folder.path
        run.finish()
        (path / f"seen-{self.world.rank}.json").write_text(json.dumps([*before, *run.seen]))
        held = {name: local(value.detach()).contiguous() for name, value in run.state._by_name().items()}
        save_file(
            {name: value.clone() for name, value in held.items()},
            path / f"held-{self.world.rank}.safetensors",
        )
        weights = {
            name: whole(value.detach()).contiguous().clone()
            for name, value in run.state.model.state_dict().items()
        }
        if self.world.is_main:
            save_file(weights, path / "weights.safetensors")
        self.world.barrier()

    def name(self, layout: str) -> str:
        """A layout with its number of processes: "ddp2"."""
        return f"{layout}{self.world.size}" if self.world.size > 1 else "single"


def encoder(cases: Cases) -> None:
    """The CLIP that other stages learn from."""
    changes = [
        "samples=16",
        "batch=8",
        f"out={cases.folder / 'encoder'}",
        f"data.cache={cases.folder / 'cache'}",
    ]
    train(override(recipes.get("tiny", "clip"), [*NETS["clip"], *changes]), device="cpu")


def group_of_one(cases: Cases, plan: Plan, chosen: Sequence[str]) -> None:
    """The runs to compare with."""
    for case in chosen:
        cases.straight(case, "ddp")
        cases.resumed(case, "ddp")
    if "clip" in chosen:
        cases.straight("bf16", "ddp")


def group_of_two(cases: Cases, plan: Plan, chosen: Sequence[str]) -> None:
    """Stages in both layouts."""
    for case in [one for one in chosen if one in plan.two]:
        for layout in ("ddp", "fsdp"):
            cases.straight(case, layout)
            cases.resumed(case, layout)
        cases.taken_over(case, "fsdp", "single")
        cases.taken_over(case, "ddp", "fsdp2")
    if "clip" in chosen:
        cases.straight("bf16", "rounded")
        cases.resumed("bf16", "rounded")
    if "upsampler" in chosen:
        for layout in ("ddp", "fsdp"):
            cases.poisoned("upsampler", layout)
            cases.stopped("upsampler", layout)


def group_of_four(cases: Cases, plan: Plan, chosen: Sequence[str]) -> None:
    """Some stages in all layouts, going on from other groups' halves."""
    for case in chosen:
        layouts = (("ddp", "fsdp") if case in plan.four else ()) + (("hsdp",) if case in plan.hybrid else ())
        for layout in layouts:
            cases.straight(case, layout)
            cases.resumed(case, layout)
        if case in plan.four:
            cases.taken_over(case, "fsdp", "ddp2")
            cases.taken_over(case, "ddp", "fsdp2")


def group_of_one_again(cases: Cases, plan: Plan, chosen: Sequence[str]) -> None:
    """A single process goes on from the halves of groups."""
    for case in chosen:
        halves = (("ddp2", "fsdp2") if case in plan.two else ()) + (("hsdp4",) if case in plan.hybrid else ())
        for half in halves:
            cases.taken_over(case, "ddp", half)


GROUPS = ((1, group_of_one), (2, group_of_two), (4, group_of_four), (1, group_of_one_again))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def in_processes(size: int, name: str, work: Callable[[Cases], None], folder: Path) -> None:
    """Run `work` in as many forks, which find each other by the environment as torchrun's do; all must succeed."""
    port, children = free_port(), []
    logs = [folder / f"{name}-{rank}.log" for rank in range(size)]
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
        raise SystemExit(f"{name}: exit statuses {statuses}")


def status_of(size: int, rank: int, port: int, work: Callable[[Cases], None], folder: Path) -> int:
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


def side_by_side(folder: Path, plan: Plan) -> None:
    """All groups of both halves of the cases."""
    children = []
    for chosen in plan.halves:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for size, group in GROUPS:
                    name = f"{group.__name__}-{chosen[0]}"
                    in_processes(size, name, partial(group, plan=plan, chosen=chosen), folder)
                status = 0
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        raise SystemExit("a group failed")


def main(folder: str, plan: str) -> None:
    """Train all cases of a plan."""
    # What each group would import.
    for name in IMPORTED:
        importlib.import_module(name)
    Path(folder).mkdir(exist_ok=True)
    in_processes(1, "encoder", encoder, Path(folder))
    side_by_side(Path(folder), PLANS[plan])
