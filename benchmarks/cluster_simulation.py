"""Discrete-event simulation of a training run on a cluster whose machines fail, and of the loaders that feed it.

    python benchmarks/cluster_simulation.py            # a 512-GPU run: time lost by the interval between checkpoints

A run is work to be done, in seconds; a checkpoint pauses it for a moment and is written meanwhile; a failure undoes what no
finished checkpoint holds, and costs a restart. Failures are a Poisson process. The best interval is Young's and Daly's, and the
simulation must agree with it (`tests/test_cluster_simulation.py`).
"""

import heapq
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """GPUs that fail. One failed GPU stops the run, since all of them compute each step together."""

    gpus: int
    gpu_hours_per_failure: float
    detection: float = 120.0
    """Seconds until a dead process is noticed: exchanges time out, or the launcher sees it end."""
    restart: float = 300.0
    """Seconds to replace the machine from spares, start all processes, read the checkpoint and compile."""

    @property
    def seconds_between_failures(self) -> float:
        """Mean time between failures of the whole cluster."""
        return self.gpu_hours_per_failure * 3600 / self.gpus


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run and its checkpoints, in seconds."""

    work: float
    interval: float
    pause: float
    """How long training stands still while the state is copied to the host."""
    write: float
    """How long the copy is written after that; it counts once the manifest is there."""


class Outcome(NamedTuple):
    """What happened in a run, in seconds."""

    elapsed: float
    failures: int
    paused: float
    lost: float
    """Work that was done and undone."""
    down: float

    @property
    def goodput(self) -> float:
        """Share of the time that made progress which lasted."""
        return (self.elapsed - self.paused - self.lost - self.down) / self.elapsed


def simulate(run: Run, cluster: Cluster, seed: int) -> Outcome:
    """Play a run to its end."""
    rng = np.random.default_rng(seed)
    clock = done = kept = paused = lost = down = 0.0
    failures = 0
    events: list[tuple[float, int, str, float]] = []
    number = 0

    def at(time: float, kind: str, value: float = 0.0) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (time, number, kind, value))

    at(rng.exponential(cluster.seconds_between_failures), "failure")
    at(min(run.interval, run.work), "stop")
    while True:
        time, _, kind, value = heapq.heappop(events)
        if kind == "failure":
            failures += 1
            # Work since the last checkpoint that is whole; a pause of the checkpoint is no work.
            done += max(0.0, time - clock)
            lost += done - kept
            done = kept
            events = []
            down += cluster.detection + cluster.restart
            clock = time + cluster.detection + cluster.restart
            at(clock + rng.exponential(cluster.seconds_between_failures), "failure")
            at(clock + min(run.interval, run.work - done), "stop")
        elif kind == "stop":
            done += time - clock
            paused += run.pause
            clock = time + run.pause
            if run.work - done < 1e-6:
                return Outcome(clock, failures, paused, lost, down)
            at(clock + run.write, "written", done)
            at(clock + min(run.interval, run.work - done), "stop")
        else:
            kept = max(kept, value)


def best_interval(pause: float, write: float, seconds_between_failures: float) -> float:
    """Seconds between checkpoints that lose the least: sqrt(2 pause M), Young 1974.

    With checkpoints that are written meanwhile, the time of writing is lost at a failure too, whatever the interval; an interval
    below it would only wait.
    """
    return max(math.sqrt(2 * pause * seconds_between_failures), write)


def expected_loss(run: Run, seconds_between_failures: float) -> float:
    """Share of the time that checkpoints and undone work take, to first order."""
    return run.pause / run.interval + (run.interval / 2 + run.write) / seconds_between_failures


class Stalls(NamedTuple):
    """How a run was fed."""

    share: float
    """Share of the time that GPUs waited for samples."""
    worst: float
    """Longest wait for a step, in seconds."""
    rate: float
    """Bytes a second that all loaders read, while they read."""


def loader_stalls(
    *,
    step: float,
    machines: int,
    bytes_per_step: float,
    bandwidth: float,
    ahead: int,
    steps: int,
    seed: int,
    latency: float = 0.05,
    spread: float = 0.5,
    slow_share: float = 0.001,
    slow: float = 5.0,
) -> Stalls:
    """Play the loaders of all machines: each prepares up to `ahead` steps, and a step begins when the last machine has its part.

    bandwidth: bytes a second that one machine reads. A read takes `latency` plus its bytes over the bandwidth, times a log-normal
    factor of deviation `spread`; a share `slow_share` of the reads takes `slow` seconds more, as object stores have it.
    """
    rng = np.random.default_rng(seed)
    each = bytes_per_step / machines / bandwidth
    free = np.zeros(machines)
    begun = [0.0] * ahead
    clock = waited = worst = 0.0
    for number in range(steps):
        took = (latency + each) * rng.lognormal(-(spread**2) / 2, spread, machines)
        took += slow * (rng.random(machines) < slow_share)
        # A machine starts to read for a step once the step `ahead` before it has begun.
        free = np.maximum(free, begun[number % ahead]) + took
        ready = float(free.max())
        wait = max(0.0, ready - clock) if number >= ahead else 0.0
        clock = max(clock, ready)
        waited, worst = waited + wait, max(worst, wait)
        begun[number % ahead] = clock
        clock += step
    return Stalls(waited / clock, worst, bytes_per_step / max(step, latency + each))


def main() -> None:
    """Print a table for 512 GPUs."""
    cluster = Cluster(gpus=512, gpu_hours_per_failure=16_384 * 54 * 24 / 419)
    for minutes in (2, 5, 10, 20, 40, 80, 160):
        run = Run(work=30 * 86_400, interval=minutes * 60, pause=2.0, write=60.0)
        found = [simulate(run, cluster, seed) for seed in range(20)]
        loss = 1 - sum(one.goodput for one in found) / len(found)
        print(
            f"{minutes:4} minutes: {loss:6.2%} lost, {sum(one.failures for one in found) / len(found):.1f} failures"
        )


if __name__ == "__main__":
    main()
