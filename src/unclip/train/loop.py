"""The training loop of all stages: resumable bit for bit, with batches prepared ahead."""

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from signal import SIGTERM
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from tqdm import tqdm

from unclip.nn.dropout import seed_dropout
from unclip.rng import Noise, derive
from unclip.train.batches import BatchError, Prefetcher
from unclip.train.begin import take_weights
from unclip.train.checkpoint_files import newest_checkpoint
from unclip.train.config import TrainConfig
from unclip.train.ema import Ema
from unclip.train.interrupt import Interrupted, stop_requests
from unclip.train.metrics import MetricsLogger
from unclip.train.optim import build_optimizers, schedule, set_rate
from unclip.train.parallel import Parallel
from unclip.train.registry import part_of
from unclip.train.run_folder import RunFolder, with_precision
from unclip.train.state import TrainingState
from unclip.train.task import Built, build_task
from unclip.train.teachers import teachers
from unclip.train.world import World, open_world

LOOKED_AT = 256
"""So many samples of a batch that failed are looked at one by one."""


class NonFiniteLoss(ArithmeticError):
    """The loss or its gradient is not a number; the weights are still those of the last good step."""


def train(config: TrainConfig, *, device: str | None = None, loggers: Sequence[MetricsLogger] = ()) -> Path:
    """Folder of the model of one stage, trained to its end, from the newest checkpoint if there is one.

    Called in several processes (of torchrun, SLURM, or a process group that exists), they train it together; the samples
    and their order are the same, and weights differ by the rounding of sums. `unclip.train.world` describes that. An interruption does not change the weights: they are bitwise those of an uninterrupted run on the same device with
    as many threads and processes (on CUDA, as far as its kernels add up in a fixed order). `RunFolder` describes the files in
    `config.out`; measurements go to `loggers` as well. Raises `NonFiniteLoss`, `BatchError`, `Interrupted`,
    `DataChanged`, and ValueError where the folder holds a run of another config.
    """
    with open_world(device, timeout=config.parallel.timeout) as world:
        config = world.from_main(lambda: with_precision(config, world.device))
        with world.main_first():
            folder = RunFolder(config, loggers=loggers, main=world.is_main)
        if world.from_main(lambda: folder.finished):
            return folder.model
        return Run(config, build_on_all(config, world), world.device, folder, world).finish()


def build_on_all(config: TrainConfig, world: World) -> Built:
    """The task and the data in every process; the main one comes first, so that the others find its caches."""
    with world.main_first():
        return build_task(config, world.device)


def training_device(name: str | None) -> torch.device:
    """The device of that name, or else a GPU if there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


class Run:
    """A run, loaded from its newest checkpoint if there is one."""

    def __init__(
        self,
        config: TrainConfig,
        built: Built,
        device: torch.device,
        folder: RunFolder,
        world: World | None = None,
    ):
        if config.precision == "auto":
            raise ValueError("the run's precision is not chosen yet: call `with_precision` first")
        self.config, self.device, self.folder = config, device, folder
        self.world = World(device) if world is None else world
        self.task, self.batches = built
        self.task.follow(config)
        self.world.from_main(self._keep_data)
        if config.init:
            take_weights(self.task.network, config.init, part_of(config.stage))
        if config.adapter is not None:
            torch.manual_seed(derive(config.seed, config.stage, "adapter"))
            self.task.adapt(config.adapter, config.init or "")
        self.parallel = Parallel(self.task, config.parallel, self.world)
        self.groups = self.task.groups(config)
        optimizers = [
            optimizer
            for group in self.groups
            for optimizer in build_optimizers(group.parameters, group.optimizer, fused=True)
        ]
        self.state = TrainingState(self.task, Ema(self.task, config.ema_decay), optimizers, self.world)
        self.state.load_newest(folder.checkpoints)
        folder.rewind_metrics(self.state.samples)
        # Halved, so that a sample's number can be added to it below 2^63.
        self.stream = derive(config.seed, config.stage, "samples") // 2
        self.prefetcher: Prefetcher[Any] = Prefetcher(self._batch, config.prefetch)

    def finish(self) -> Path:
        """Folder of the finished model, after all remaining steps."""
        self.go()
        best = self.state.best
        average = self.state.ema.average if best is None else best.average
        with self.parallel.holding(average):
            return self.world.from_main(
                lambda: self.task.save(
                    self.folder.model,
                    part=part_of(self.config.stage),
                    name=f"{self.config.recipe}-{self.config.stage}",
                    batches=self.batches,
                )
            )

    def _keep_data(self) -> None:
        config, batches = self.config, self.batches
        self.folder.keep_data(
            {"train": batches.train.contents(), "validation": batches.held_out.contents()},
            tokenizer=batches.tokenizer_json if config.stage == "clip" else None,
            teachers=teachers(batches),
            allow=config.data.changed == "allow",
        )

    def set_length(self, config: TrainConfig) -> None:
        """Continue with another length or schedule, and record it in the folder."""
        if config != self.config:
            self.folder.write_config(config)
            self.task.follow(config)
            self.config = config

    def go(self, until: int | None = None) -> None:
        """Step until all samples are seen, or `until` of them; save on the way, when asked to stop, and at the end."""
        config, state, world = self.config, self.state, self.world
        end = config.samples if until is None else min(until, config.samples)
        saved = time.monotonic()
        with (
            closing(self.folder),
            closing(state),
            closing(self.prefetcher),
            stop_requests() as stop,
            self._progress_bar() as bar,
        ):
            # All processes stop, and save, after the same step.
            (stopped,) = world.any(bool(stop))
            if state.samples < end:
                self.parallel.settle(lambda: self._accumulate(next(micro_batches(config, state.samples))))
            while state.samples < end and not stopped:
                before, started = state.samples, time.monotonic()
                metrics = self.step()
                rate = (state.samples - before) / (time.monotonic() - started)
                bar.set_postfix(loss=f"{metrics['loss']:.4f}", refresh=False)
                bar.update(state.samples - before)
                self.folder.write_metrics(state.samples, **metrics, rate=rate)
                overdue = world.is_main and time.monotonic() - saved > config.checkpoint_seconds
                stopped, overdue = world.any(bool(stop), overdue)
                # A validation that decides which average is kept takes place even when a stop was requested.
                if self._due(before, config.validate_every) and (config.keep == "best" or not stopped):
                    self.validate()
                if self._due(before, config.preview_every) and not stopped:
                    self.preview()
                if overdue:
                    self._save()
                    saved = time.monotonic()
            self._save()
            state.close()
            (stopped,) = world.any(bool(stop))
            if stopped:
                message = f"saved after {state.samples:,} samples; the same command resumes"
                raise Interrupted(message, stop.signal or SIGTERM)

    def step(self) -> dict[str, float]:
        """One optimiser step; its measurements. Nothing has changed when it raises `NonFiniteLoss`."""
        config, state = self.config, self.state
        numbers = np.arange(state.samples, min(state.samples + config.batch, config.samples))
        metrics = self._accumulate(numbers, micro_batches(config, state.samples + len(numbers)))
        if not _is_finite(metrics):
            raise NonFiniteLoss(self._blame(numbers, metrics))
        # The rate is the schedule's in the middle of the batch, so that no step of a run has rate zero.
        set_rate(
            state.optimizers, schedule(config.optimizer, (state.samples + len(numbers) / 2) / config.samples)
        )
        for optimizer in state.optimizers:
            optimizer.step()
        self._forget_gradients()
        state.samples += len(numbers)
        state.steps += 1
        state.ema.update(state.model, state.steps)
        return metrics

    def _accumulate(
        self, numbers: Int64[np.ndarray, " b"], following: Iterable[Int64[np.ndarray, " _"]] = ()
    ) -> dict[str, float]:
        """Leave the clipped gradient of the samples' mean loss in the network; measurements of it.

        Micro-batches of `following` are prepared meanwhile. Each process computes its part of every micro-batch.
        """
        world = self.world
        chunks = split(numbers, self.config.micro_batch)
        sums: dict[str, torch.Tensor] = {}
        for place, chunk in enumerate(chunks):
            division = world.divide(chunk)
            own, last = division.part(chunk), place == len(chunks) - 1
            later = (world.divide(one).part(one) for one in chain(chunks[place + 1 :], following))
            batch = self.prefetcher.take(own, later)
            share = division.count / len(numbers)
            noise = self._noise(own)
            seed_dropout(self.task, noise)
            with self.parallel.accumulating(last=last):
                with self._autocast():
                    losses = self.parallel.forward(batch, noise, division)
                # Gradients are averaged over processes, and losses are parts of a sum.
                (losses.loss * (share * world.size)).backward()
            for name, value in {"loss": losses.loss, **losses.metrics}.items():
                sums[name] = value.detach() * share + sums.get(name, 0.0)
        norms: dict[str, torch.Tensor] = {}
        for place, group in enumerate(self.groups):
            parameters = [parameter for _, parameter in group.parameters]
            norm = self.parallel.clip(parameters, group.optimizer.clip_norm)
            norms[f"gradient_norm_{place + 1}" if place else "gradient_norm"] = norm.detach()
        found = torch.cat([world.sum(torch.stack(list(sums.values()))), torch.stack(list(norms.values()))])
        # The only time in a step that the host waits for the device.
        return dict(zip((*sums, *norms), found.tolist()))

    def _blame(self, numbers: Int64[np.ndarray, " b"], metrics: dict[str, float]) -> str:
        """Message naming the samples that fail alone, or the whole batch where none does."""
        alone = []
        for number in numbers[:LOOKED_AT]:
            self._forget_gradients()
            if not _is_finite(self._accumulate(np.array([number]))):
                alone.append(int(number))
        self._forget_gradients()
        looked_at = min(len(numbers), LOOKED_AT)
        what = f"loss {metrics['loss']}, gradient norm {metrics['gradient_norm']}"
        # Where most of a batch fails, it is not for a picture: the weights have diverged.
        if not alone or (looked_at > 1 and 2 * len(alone) > looked_at):
            found = f"{len(alone)} of {looked_at} samples fail alone" if alone else "no sample fails alone"
            cause = f"at sample {numbers[0]}: {found}, so the weights have diverged: lower optimizer.learning_rate"
        else:
            keys = ", ".join(f"{self.batches.key(number)} (sample {number})" for number in alone[:8])
            more = f" and {len(alone) - 8} more" if len(alone) > 8 else ""
            cause = f"at {keys}{more}: look at these pictures"
        kept = newest_checkpoint(self.folder.checkpoints)
        rest = (
            f"the run goes on from {kept}" if kept else "there is no checkpoint yet, so the run begins again"
        )
        return f"{what} {cause}. Nothing was learned from this batch; {rest}"

    def _batch(self, numbers: Int64[np.ndarray, " b"]) -> Any:
        """The batch of these sample numbers. Raises `BatchError` that names the first sample that fails alone."""
        try:
            return self.batches.batch(numbers, self._noise(numbers))
        except Exception as error:
            if len(numbers) == 1:
                number = int(numbers[0])
                raise BatchError(f"{self.batches.key(number)} (sample {number}): {error}") from error
            for number in numbers:
                self._batch(np.array([number]))
            raise

    def _forget_gradients(self) -> None:
        for optimizer in self.state.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _noise(self, numbers: Int64[np.ndarray, " b"]) -> Noise:
        return Noise(torch.from_numpy(numbers).to(self.device) + self.stream, device=self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _inference(self) -> Any:
        # Weights that are gathered from shards become tensors of training again.
        return torch.no_grad() if self.parallel.sharded else torch.inference_mode()

    def _due(self, before: int, every: int) -> bool:
        return before // every != self.state.samples // every or self.state.samples >= self.config.samples

    def validate(self) -> None:
        """Log the average's losses on held-out data; keep the average if it is the best and the config says so."""
        with self.state.ema.applied(self.state.model), self._inference(), self._autocast():
            losses = self.task.validate(self.batches)
        losses = self.world.from_main(lambda: losses)
        named = {f"validation_{name}": value for name, value in losses.items()}
        self.folder.write_metrics(self.state.samples, **named)
        if self.config.keep == "best":
            self.state.keep_if_best(losses["loss"])

    def preview(self) -> None:
        """Log a picture drawn with the average, if the task has one."""
        if not (self.world.is_main or self.parallel.sharded):
            return
        with self.state.ema.applied(self.state.model), self._inference(), self._autocast():
            picture = self.task.preview(self.batches)
        if picture is not None:
            self.folder.write_preview(self.state.samples, picture)

    def _save(self) -> None:
        self.state.save(self.folder.checkpoints, keep=self.config.checkpoints_kept)

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=self.config.samples,
            initial=self.state.samples,
            desc=self.config.stage,
            unit=" pictures",
            disable=not (self.world.is_main and sys.stderr.isatty()),
            dynamic_ncols=True,
            smoothing=0.05,
        )


def micro_batches(config: TrainConfig, start: int) -> Iterator[Int64[np.ndarray, " b"]]:
    """The sample numbers of a run's micro-batches, from the batch that begins with number `start` on."""
    while start < config.samples:
        numbers = np.arange(start, min(start + config.batch, config.samples))
        yield from split(numbers, config.micro_batch)
        start += len(numbers)


def split(numbers: Int64[np.ndarray, " b"], size: int | None) -> list[Int64[np.ndarray, " _"]]:
    """Consecutive sample numbers in micro-batches of at most `size`; None: in one."""
    size = size or len(numbers)
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _is_finite(metrics: dict[str, float]) -> bool:
    watched = [value for name, value in metrics.items() if name == "loss" or name.startswith("gradient_norm")]
    return all(map(math.isfinite, watched))
