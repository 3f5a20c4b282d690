"""Time-limited training: benchmark a few steps, set the run's length from their speed, train.

The learning rate's schedule needs the length of the run, so the length is recorded in the run's config before training
begins. The benchmark's steps are undone: a run with a budget has bitwise the weights of a run of as many samples. The
length does not influence the schedule until the rate begins to fall; at that point it is adjusted to the run's actual
speed.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGTERM
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from unclip.train.config import TrainConfig
from unclip.train.ema import copy_of
from unclip.train.interrupt import Interrupted, stop_requests
from unclip.train.loop import Run, build_on_all, train
from unclip.train.metrics import MetricsLogger
from unclip.train.run_folder import RunFolder, time_spent, with_precision
from unclip.train.task import Built
from unclip.train.world import World, open_world

logger = logging.getLogger(__name__)

Clock = Callable[[], float]

# The first steps compile, choose kernels and fill memory pools; they are not counted.
WARM_UP_STEPS = 3
MEASURED_STEPS = 4
# Steps are measured for this share of the time at least; validations and previews may take these shares at most.
MEASURED_SHARE = 0.01
VALIDATION_SHARE, MOST_VALIDATIONS = 0.06, 25
PREVIEW_SHARE, MOST_PREVIEWS = 0.03, 5
# Left for checkpoints, the model's file, and a machine that slows down.
RESERVE = 0.04
# No run is so long: while steps are measured, the schedule stays at its beginning.
_ENDLESS = 1 << 50
# A length that is right to within this share is left as it is.
CLOSE_ENOUGH = 0.02


class BudgetSpent(ValueError):
    """The budget leaves no time for a stage."""


class Costs(NamedTuple):
    """Seconds that one step, one validation and one preview take."""

    step: float
    validation: float
    preview: float


def train_within(
    config: TrainConfig,
    seconds: float,
    *,
    device: str | None = None,
    clock: Clock = time.monotonic,
    loggers: Sequence[MetricsLogger] = (),
) -> Path:
    """Folder of the model of one stage, trained for `seconds`, reading its data included.

    A run that was stopped keeps the length that it had, whatever `seconds` is now. Raises what `train` raises,
    and `BudgetSpent` where not one step fits.
    """
    with open_world(device, timeout=config.parallel.timeout) as world:
        # All processes go by the main one's clock, so that they decide alike.
        return _within(config, seconds, world, lambda: world.from_main(clock), device=device, loggers=loggers)


def _within(
    config: TrainConfig,
    seconds: float,
    world: World,
    clock: Clock,
    *,
    device: str | None,
    loggers: Sequence[MetricsLogger],
) -> Path:
    started = clock()
    if not config.out:
        raise ValueError("the config names no folder for the run: set out")
    config = world.from_main(lambda: with_precision(config, world.device))
    begun = world.from_main(lambda: begun_with(config))
    if begun is not None:
        return train(begun, device=device, loggers=loggers)
    built = build_on_all(config, world)
    left = seconds - (clock() - started)
    costs = measure(config, built, world.device, seconds=left, clock=clock, world=world)
    if world.size > 1:
        # A task is spread over processes once.
        built = build_on_all(config, world)
    config = fitted(config, seconds - (clock() - started), costs)
    spent = clock() - started
    with world.main_first():
        folder = RunFolder(config, spent=spent, loggers=loggers, main=world.is_main)
    run = Run(config, built, world.device, folder, world)
    # The speed is that of the steps that cost most, as the remaining ones do.
    if 0 < config.costly_from < constant_until(config):
        run.go(until=config.costly_from)
    began, first = clock(), run.state.samples
    run.go(until=constant_until(config))
    if run.state.samples > first:
        rate = (run.state.samples - first) / (clock() - began)
        left = (1 - RESERVE) * seconds - (clock() - started)
        run.set_length(adjusted_length(config, run.state.samples, max(0, int(left * rate))))
    return run.finish()


def constant_until(config: TrainConfig) -> int:
    """The sample from which on the learning rate falls, in whole batches."""
    return int(config.samples * (1 - config.optimizer.decay)) // config.batch * config.batch


def adjusted_length(config: TrainConfig, done: int, more: int) -> TrainConfig:
    """Config of a run of about `more` further samples, with the same schedule up to `done`.

    The decay of the rate needs some steps, so the rest is at least a tenth of `done`, even if that takes longer.
    """
    more = max(more, done // 10, 1)
    samples = done + -(-more // config.batch) * config.batch
    if abs(samples - config.samples) <= CLOSE_ENOUGH * config.samples:
        return config
    old = config.optimizer
    optimizer = replace(
        old,
        warmup=old.warmup * config.samples / samples,
        decay=1 - config.samples * (1 - old.decay) / samples,
    )
    return replace(config, samples=samples, optimizer=optimizer)


def begun_with(config: TrainConfig) -> TrainConfig | None:
    """The config with the length that a begun run in its folder has; None where none has begun."""
    file = Path(config.out) / "config.json"
    if not file.exists():
        return None
    begun = json.loads(file.read_text(encoding="utf-8"))
    schedule = {name: begun["optimizer"][name] for name in ("warmup", "decay")}
    return replace(
        config,
        **{name: begun[name] for name in config.OF_LENGTH if name in begun},
        optimizer=replace(config.optimizer, **schedule),
    )


def measure(
    config: TrainConfig,
    built: Built,
    device: torch.device,
    *,
    seconds: float,
    clock: Clock,
    world: World | None = None,
) -> Costs:
    """What the run's parts cost on this machine; a single process's network is as before. Raises `Interrupted`."""
    world = World(device) if world is None else world
    weights = copy_of(built.task.state_dict())
    with TemporaryDirectory() as folder, stop_requests() as stop:
        trial = replace(config.costly(), out=folder, samples=_ENDLESS, keep="last", loggers=())
        run = Run(trial, built, device, RunFolder(trial, main=world.is_main), world)

        def taken(part: Callable[[], Any]) -> float:
            if any(world.any(bool(stop))):
                message = "nothing was trained yet; run the same command again"
                raise Interrupted(message, stop.signal or SIGTERM)
            before = clock()
            part()
            return clock() - before

        for _ in range(WARM_UP_STEPS):
            taken(run.step)
        steps: list[float] = []
        while len(steps) < MEASURED_STEPS or sum(steps) < MEASURED_SHARE * seconds:
            steps.append(taken(run.step))
        costs = Costs(sum(steps) / len(steps), taken(run.validate), taken(run.preview))
        run.prefetcher.close()
    if world.size == 1:
        built.task.load_state_dict(weights)
    return costs


def fitted(config: TrainConfig, seconds: float, costs: Costs) -> TrainConfig:
    """The config with as many whole batches as fit into `seconds`, validated and previewed evenly on the way.

    Raises `BudgetSpent` where none fits.
    """
    validations = _count(VALIDATION_SHARE * seconds, costs.validation, MOST_VALIDATIONS)
    previews = _count(PREVIEW_SHARE * seconds, costs.preview, MOST_PREVIEWS)
    left = (1 - RESERVE) * seconds - validations * costs.validation - previews * costs.preview
    batches = int(left / costs.step)
    if batches < 1:
        raise BudgetSpent(
            f"there are {max(seconds, 0.0):.1f} s left for the stage {config.stage}, and a step, a validation and a "
            f"preview take {sum(costs):.1f} s: give a larger budget"
        )
    return replace(
        config.lasting(batches * config.batch),
        validate_every=-(-batches // validations) * config.batch,
        preview_every=-(-batches // previews) * config.batch,
    )


def _count(seconds: float, each: float, most: int) -> int:
    return max(1, min(most, int(seconds / max(each, 1e-9))))


def train_all(
    stages: Mapping[str, tuple[TrainConfig, float]],
    seconds: float | None = None,
    *,
    device: str | None = None,
    clock: Clock = time.monotonic,
) -> dict[str, Path]:
    """Model folders of stages, by name, trained in order; each stage is (config, share of the time).

    Later stages share the time that earlier ones saved or overran. Finished runs are left alone, a run that has begun
    keeps its length, and the time that both took counts. Without `seconds`, each is as long as its config says. Raises
    what `train_within` raises.
    """
    models = {}
    # One process group for all stages, where there are several processes.
    with open_world(device) as world:
        for name, (config, share) in stages.items():
            if seconds is None:
                logger.info("%s: %s samples", name, f"{config.samples:,}")
                models[name] = train(config, device=device)
                continue
            time_left = partial(_allotted, stages, name, share, seconds)
            models[name] = train_within(config, world.from_main(time_left), device=device, clock=clock)
    return models


def _allotted(
    stages: Mapping[str, tuple[TrainConfig, float]], name: str, share: float, seconds: float
) -> float:
    """The seconds of a stage that has not begun, of those that are left; all of them for one that has."""
    if begun_with(stages[name][0]) is not None:
        logger.info("%s: finished, or resumed with the length that it has", name)
        return seconds
    spent = sum(time_spent(Path(one.out)) for one, _ in stages.values())
    waiting = [share for one, share in stages.values() if begun_with(one) is None]
    allotted = (seconds - spent) * share / sum(waiting)
    if allotted <= 0:
        raise BudgetSpent(
            f"{spent:.0f} s of {seconds:.0f} s are spent, and {name} has not begun: "
            "the same command with a larger budget resumes"
        )
    logger.info("%s: %.0f s", name, allotted)
    return allotted
