"""The training loop, the only one: every stage, one CPU or one GPU; killed and started again, it goes on exactly."""

import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from tqdm import tqdm

from unclip.checkpoints.io import save_model
from unclip.rng import Noise, derive
from unclip.train.begin import take_weights
from unclip.train.config import TrainConfig
from unclip.train.ema import Ema, holding
from unclip.train.interrupt import Interrupted, stop_requests
from unclip.train.objective import Objective
from unclip.train.objectives import build_objective
from unclip.train.optim import build_optimizers, schedule, set_rate
from unclip.train.run_folder import RunFolder
from unclip.train.state import TrainingState

LOOKED_AT = 256
"""So many samples of a batch that failed are looked at one by one."""


class NonFiniteLoss(ArithmeticError):
    """The loss or its gradient is not a number; the weights are still those of the last good step."""


def train(config: TrainConfig, *, device: str | None = None) -> Path:
    """Train one stage to its end, from its newest checkpoint if there is one; the finished model's folder.

    Where it was killed does not show in the weights: they are bitwise those of a run in one go on the same device with
    as many threads (on CUDA, as far as its kernels add up in a fixed order). `RunFolder` tells what lies in
    `config.out`. Raises `NonFiniteLoss`, `Interrupted`, and ValueError where the folder holds a run of another config.
    """
    chosen = training_device(device)
    folder = RunFolder(config)
    if folder.finished:
        return folder.model
    return Run(config, build_objective(config, chosen), chosen, folder).finish()


def training_device(name: str | None) -> torch.device:
    """The device of that name, or else a GPU if there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


class Run:
    """A run between its steps, beginning where its newest checkpoint is."""

    def __init__(self, config: TrainConfig, objective: Objective, device: torch.device, folder: RunFolder):
        self.config, self.objective, self.device, self.folder = config, objective, device, folder
        model = objective.model
        if config.init:
            take_weights(model, config.init, config.stage)
        optimizers = build_optimizers(model.named_parameters(), config.optimizer, fused=True)
        self.state = TrainingState(model, Ema(model, config.ema_decay), optimizers)
        self.state.load_newest(folder.checkpoints)
        folder.rewind_metrics(self.state.samples)
        # Halved, so that a sample's number can be added to it below 2^63.
        self.stream = derive(config.seed, config.stage, "samples") // 2

    def finish(self) -> Path:
        """Step to the end, and write the model that is kept; its folder."""
        self.go()
        best, objective = self.state.best, self.objective
        with holding(objective.model, self.state.ema.average if best is None else best.average):
            return save_model(
                self.folder.model,
                {self.config.stage: objective.model},
                name=f"{self.config.recipe}-{self.config.stage}",
                tokenizer=objective.tokenizer_json,
                space=objective.space,
            )

    def settle(self, config: TrainConfig) -> None:
        """Go on with another length or schedule, and write that down."""
        if config != self.config:
            self.folder.settle(config)
            self.config = config

    def go(self, until: int | None = None) -> None:
        """Step until all samples are seen, or `until` of them; save on the way, when asked to stop, and at the end."""
        config, state = self.config, self.state
        end = config.samples if until is None else min(until, config.samples)
        saved = time.monotonic()
        with stop_requests() as stop, self._progress_bar() as bar:
            while state.samples < end and not stop:
                before, started = state.samples, time.monotonic()
                metrics = self.step()
                rate = (state.samples - before) / (time.monotonic() - started)
                bar.set_postfix(loss=f"{metrics['loss']:.4f}", refresh=False)
                bar.update(state.samples - before)
                self.folder.write_metrics(state.samples, **metrics, rate=rate)
                # A validation that decides what is kept takes place even when somebody waits for the run to stop.
                if self._due(before, config.validate_every) and (config.keep == "best" or not stop):
                    self.validate()
                if self._due(before, config.preview_every) and not stop:
                    self.preview()
                if time.monotonic() - saved > config.checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
            self._save()
            if stop.signal is not None:
                message = f"saved after {state.samples:,} samples; the same command goes on"
                raise Interrupted(message, stop.signal)

    def step(self) -> dict[str, float]:
        """One optimiser step; its measurements. Nothing has changed when it raises `NonFiniteLoss`."""
        config, state = self.config, self.state
        numbers = np.arange(state.samples, min(state.samples + config.batch, config.samples))
        metrics = self._accumulate(numbers)
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

    def _accumulate(self, numbers: Int64[np.ndarray, " b"]) -> dict[str, float]:
        """Leave the clipped gradient of the samples' mean loss in the network; measurements of it."""
        size = self.config.micro_batch or len(numbers)
        sums: dict[str, torch.Tensor] = {}
        for start in range(0, len(numbers), size):
            chunk = numbers[start : start + size]
            share = len(chunk) / len(numbers)
            # For dropout inside of networks, the only randomness that does not come from `Noise`.
            torch.manual_seed(derive(self.stream, "dropout", int(chunk[0])))
            with self._autocast():
                losses = self.objective.loss(chunk, self._noise(chunk))
            (losses.loss * share).backward()
            for name, value in {"loss": losses.loss, **losses.metrics}.items():
                sums[name] = value.detach() * share + sums.get(name, 0.0)
        norm = torch.nn.utils.clip_grad_norm_(self.state.model.parameters(), self.config.optimizer.clip_norm)
        sums["gradient_norm"] = norm.detach()
        # The only time in a step that the host waits for the device.
        return dict(zip(sums, torch.stack(list(sums.values())).tolist()))

    def _blame(self, numbers: Int64[np.ndarray, " b"], metrics: dict[str, float]) -> str:
        """What went wrong: the samples that fail alone, or else the range, as then it is the batch that fails."""
        alone = []
        for number in numbers[:LOOKED_AT]:
            self._forget_gradients()
            if not _is_finite(self._accumulate(np.array([number]))):
                alone.append(int(number))
        self._forget_gradients()
        suspects = alone or numbers.tolist()
        keys = ", ".join(f"{self.objective.train.key(number)} (sample {number})" for number in suspects[:8])
        return (
            f"loss {metrics['loss']}, gradient norm {metrics['gradient_norm']} at {keys}"
            f"{f' and {len(suspects) - 8} more' if len(suspects) > 8 else ''}: "
            + ("look at these pictures" if alone else "no picture fails alone: lower optimizer.learning_rate")
            + f". Nothing was learned from this batch; the last checkpoint in {self.folder.checkpoints} is good"
        )

    def _forget_gradients(self) -> None:
        for optimizer in self.state.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _noise(self, numbers: Int64[np.ndarray, " b"]) -> Noise:
        return Noise(torch.from_numpy(numbers).to(self.device) + self.stream, device=self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _due(self, before: int, every: int) -> bool:
        return before // every != self.state.samples // every or self.state.samples >= self.config.samples

    def validate(self) -> None:
        """Measure the average on held-out data; keep it if it is the best so far and the config wants that one."""
        with self.state.ema.applied(self.state.model), torch.inference_mode(), self._autocast():
            losses = self.objective.validate()
        named = {f"validation_{name}": value for name, value in losses.items()}
        self.folder.write_metrics(self.state.samples, **named)
        if self.config.keep == "best":
            self.state.keep_if_best(losses["loss"])

    def preview(self) -> None:
        """Draw with the average, if that can be shown."""
        with self.state.ema.applied(self.state.model), torch.inference_mode(), self._autocast():
            picture = self.objective.preview()
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
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.05,
        )


def _is_finite(metrics: dict[str, float]) -> bool:
    return math.isfinite(metrics["loss"]) and math.isfinite(metrics["gradient_norm"])
