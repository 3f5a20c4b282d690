"""The training loop, the only one: every stage, one CPU or one GPU; killed and started again, it goes on exactly."""

import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from tqdm import tqdm

from unclip.checkpoints.io import save_model
from unclip.config import to_dict
from unclip.images import save_picture
from unclip.rng import Noise, derive
from unclip.train.config import TrainConfig
from unclip.train.ema import Ema
from unclip.train.objective import Losses, Objective
from unclip.train.objectives import build_objective
from unclip.train.optim import build_optimizers, schedule, set_rate
from unclip.train.state import TrainingState


class NonFiniteLoss(ArithmeticError):
    """The loss or its gradient is not a number; the weights are still those of the last good step."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, has saved its state and can be started again by the same command."""


def train(config: TrainConfig, *, device: str | None = None) -> Path:
    """Train one stage to its end, from its newest checkpoint if there is one; the finished model's folder.

    Below `config.out`: `config.json`, `metrics.jsonl`, `previews/`, `checkpoints/`, and at the end `model/`.
    Raises `NonFiniteLoss`, `Interrupted`, and ValueError where the folder holds a run of another config.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    out = Path(config.out)
    _claim(out, config)
    finished = out / "model"
    if (finished / "model.json").exists():
        return finished
    torch.manual_seed(derive(config.seed, config.stage, "weights"))
    objective = build_objective(config, chosen)
    run = _Run(config, objective, chosen, out)
    run.go()
    with run.state.ema.applied(objective.model):
        return save_model(
            finished,
            {config.stage: objective.model},
            name=f"{config.recipe}-{config.stage}",
            tokenizer=getattr(objective, "tokenizer_json", None),
        )


class _Run:
    """The loop's state between steps."""

    def __init__(self, config: TrainConfig, objective: Objective, device: torch.device, out: Path):
        self.config, self.objective, self.device, self.out = config, objective, device, out
        model = objective.model
        optimizers = build_optimizers(model.named_parameters(), config.optimizer, fused=True)
        self.state = TrainingState(model, Ema(model, config.ema_decay), optimizers)
        self.state.load_newest(out / "checkpoints")
        self.started = time.monotonic()
        self.source = derive(config.seed, config.stage, "samples")

    def go(self) -> None:
        """Step until all samples are seen; save on the way, when asked to stop, and at the end."""
        config, state = self.config, self.state
        saved = time.monotonic()
        with _stop_requests() as stop, self._progress_bar() as bar:
            while state.samples < config.samples:
                before = state.samples
                started = time.monotonic()
                losses = self._step()
                rate = (state.samples - before) / (time.monotonic() - started)
                bar.update(state.samples - before)
                bar.set_postfix(loss=f"{losses.loss.item():.4f}", refresh=False)
                self._log(loss=losses.loss.item(), rate=round(rate, 1), **losses.metrics)
                if self._due(before, config.validate_every):
                    self._validate()
                if self._due(before, config.preview_every):
                    self._preview()
                if stop.requested or time.monotonic() - saved > config.checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
                if stop.requested:
                    raise Interrupted(f"saved after {state.samples:,} samples; the same command goes on")
            self._save()

    def _step(self) -> Losses:
        """One optimiser step. Nothing has changed when it raises."""
        config, state = self.config, self.state
        numbers = np.arange(state.samples, min(state.samples + config.batch, config.samples))
        size = config.micro_batch or len(numbers)
        total, metrics = torch.zeros((), device=self.device), {}
        for start in range(0, len(numbers), size):
            chunk = numbers[start : start + size]
            share = len(chunk) / len(numbers)
            with self._autocast():
                losses = self.objective.loss(chunk, self._noise(chunk))
            (losses.loss * share).backward()
            total += losses.loss.detach() * share
            for name, value in losses.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + value * share
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optimizer.clip_norm)
        if not math.isfinite(total.item()) or not math.isfinite(norm.item()):
            self._zero_gradients()
            raise NonFiniteLoss(
                f"loss {total.item()}, gradient norm {norm.item()} at samples {numbers[0]} to {numbers[-1]}: "
                "lower optimizer.learning_rate or look at these samples; the last checkpoint is good"
            )
        set_rate(
            state.optimizers, schedule(config.optimizer, (state.samples + len(numbers)) / config.samples)
        )
        for optimizer in state.optimizers:
            optimizer.step()
        self._zero_gradients()
        state.samples += len(numbers)
        state.steps += 1
        state.ema.update(state.model, state.steps)
        return Losses(total, {**metrics, "gradient_norm": norm.item()})

    def _zero_gradients(self) -> None:
        for optimizer in self.state.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _noise(self, numbers: np.ndarray) -> Noise:
        seeds = torch.from_numpy(numbers).to(self.device) + self.source // 2
        return Noise(seeds, device=self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _due(self, before: int, every: int) -> bool:
        return before // every != self.state.samples // every or self.state.samples >= self.config.samples

    def _validate(self) -> None:
        with self.state.ema.applied(self.state.model), torch.inference_mode(), self._autocast():
            self._log(**{f"validation_{name}": value for name, value in self.objective.validate().items()})

    def _preview(self) -> None:
        with self.state.ema.applied(self.state.model), torch.inference_mode(), self._autocast():
            picture = self.objective.preview()
        if picture is not None:
            folder = self.out / "previews"
            folder.mkdir(parents=True, exist_ok=True)
            save_picture(picture, folder / f"{self.state.samples:09d}.png", force=True)

    def _save(self) -> None:
        self.state.save(self.out / "checkpoints", keep=self.config.checkpoints_kept)

    def _log(self, **values: float) -> None:
        entry = {"samples": self.state.samples, "seconds": round(time.monotonic() - self.started, 1), **values}
        with (self.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({key: _rounded(value) for key, value in entry.items()}) + "\n")

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


def _rounded(value: float) -> float:
    return float(f"{value:.6g}") if isinstance(value, float) and not value.is_integer() else value


def _claim(out: Path, config: TrainConfig) -> None:
    """Write the config, or check that the run in the folder has the same one."""
    if not config.out:
        raise ValueError("the config names no folder for the run: set out")
    file = out / "config.json"
    text = json.dumps(to_dict(config), indent=2)
    if file.exists() and file.read_text() != text:
        old, new = json.loads(file.read_text()), to_dict(config)
        changed = sorted(
            key for key in old.keys() | new.keys() if old.get(key) != json.loads(json.dumps(new.get(key)))
        )
        if changed:
            raise ValueError(
                f"{out} holds a run of another config (it differs in {', '.join(changed)}): "
                "choose another --out, or remove that folder to start anew"
            )
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


class _StopRequest:
    requested = False


@contextmanager
def _stop_requests() -> Iterator[_StopRequest]:
    """SIGTERM and Ctrl-C ask the loop to stop after this step; a second one is taken as usual."""
    request = _StopRequest()
    try:
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def ask(number: int, frame: FrameType | None) -> None:
            request.requested = True
            signal.signal(number, previous[signal.Signals(number)])

        for number in previous:
            signal.signal(number, ask)
    except ValueError:  # Not the main thread: signals belong to somebody else.
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
