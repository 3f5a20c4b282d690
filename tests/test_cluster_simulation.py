"""The simulated cluster agrees with what is known in closed form."""

import importlib
import math
from pathlib import Path

import pytest


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module("cluster_simulation")


def test_without_failures_only_pauses_are_lost(simulation):
    cluster = simulation.Cluster(gpus=1, gpu_hours_per_failure=1e12)
    run = simulation.Run(work=1000.0, interval=100.0, pause=3.0, write=20.0)
    found = simulation.simulate(run, cluster, seed=0)
    assert (found.elapsed, found.failures, found.lost, found.down) == (1030.0, 0, 0.0, 0.0)
    assert found.goodput == pytest.approx(1000 / 1030)


def test_all_time_is_accounted_for(simulation):
    cluster = simulation.Cluster(gpus=512, gpu_hours_per_failure=1000.0)
    run = simulation.Run(work=1e6, interval=600.0, pause=2.0, write=60.0)
    for seed in range(5):
        found = simulation.simulate(run, cluster, seed)
        assert found.failures > 50
        useful = found.elapsed - found.paused - found.lost - found.down
        # A failure in a pause cuts that pause short.
        assert useful == pytest.approx(run.work, abs=found.failures * run.pause)


def test_losses_are_young_and_dalys(simulation):
    cluster = simulation.Cluster(gpus=512, gpu_hours_per_failure=20_000.0, detection=0.0, restart=0.0)
    between = cluster.seconds_between_failures
    best = simulation.best_interval(30.0, 60.0, between)
    assert best == math.sqrt(2 * 30.0 * between)
    losses = {}
    for factor in (0.25, 1.0, 4.0):
        run = simulation.Run(work=5e6, interval=factor * best, pause=30.0, write=60.0)
        outcomes = [simulation.simulate(run, cluster, seed) for seed in range(40)]
        losses[factor] = 1 - sum(one.goodput for one in outcomes) / len(outcomes)
        assert losses[factor] == pytest.approx(simulation.expected_loss(run, between), rel=0.1)
    assert losses[1.0] < min(losses[0.25], losses[4.0])


def test_loaders_stall_a_run_only_when_they_are_too_slow(simulation):
    def share(bandwidth: float, ahead: int, **more: float) -> float:
        found = simulation.loader_stalls(
            step=1.0,
            machines=64,
            bytes_per_step=64e8,
            bandwidth=bandwidth,
            ahead=ahead,
            steps=2000,
            seed=0,
            **more,
        )
        return found.share

    # Each machine needs 1e8 bytes a step of a second.
    assert share(4e8, 16, slow_share=0.0) < 0.01
    # Too slow by a factor of two: half of the time is spent waiting.
    assert share(0.5e8, 16, latency=0.0, spread=0.0, slow_share=0.0) == pytest.approx(0.5, abs=0.02)
    # Slow reads hurt where too little is prepared ahead.
    assert share(4e8, 1) > 5 * share(4e8, 32)
