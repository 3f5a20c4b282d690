"""Folder of a run: config.json, metrics.jsonl, previews/, checkpoints/, and model/ when it has finished."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image

from unclip.config import to_dict
from unclip.images import write_atomically
from unclip.nn.precision import choose
from unclip.train.config import TrainConfig, read_config
from unclip.train.metrics import FolderLogger, MetricsLogger, build_loggers, is_within

C = TypeVar("C", bound=TrainConfig)

# A run may be resumed with other values of these: no weight depends on them (but see `_binding`).
_FREE = {
    "out",
    "validate_every",
    "preview_every",
    "checkpoint_seconds",
    "checkpoints_kept",
    "prefetch",
    "loggers",
}


def with_precision(config: C, device: torch.device) -> C:
    """The config with the precision of the run in its folder, or else the one chosen for `device`, in place of "auto"."""
    if config.precision != "auto":
        return config
    file = Path(config.out) / "config.json"
    recorded = json.loads(file.read_text(encoding="utf-8")).get("precision") if file.exists() else None
    return replace(config, precision=recorded or choose("auto", device))


class RunFolder:
    """The folder that `config.out` names, claimed for a run of that config.

    `spent` is the seconds that the run has taken already, where its metrics do not record them. Measurements go to the folder,
    to the config's `loggers` and to the given ones.
    Raises ValueError where the config names no folder, or the folder holds a run of another config.
    """

    def __init__(self, config: TrainConfig, *, spent: float = 0.0, loggers: Sequence[MetricsLogger] = ()):
        if not config.out:
            raise ValueError("the config names no folder for the run: set out")
        self.path = Path(config.out)
        self.loggers = [FolderLogger(self.path), *build_loggers(config.loggers, self.path), *loggers]
        self._started = time.monotonic() - (spent or time_spent(self.path))
        file = self.path / "config.json"
        if file.exists():
            old = _binding(_completed(json.loads(file.read_text(encoding="utf-8")), self.path))
            new = _binding(json.loads(json.dumps(to_dict(config))))
            changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            if changed:
                raise ValueError(
                    f"{self.path} holds a run of another config (it differs in {', '.join(changed)}): "
                    "choose another --out, or remove that folder to start over"
                )
        self.write_config(config)

    def write_config(self, config: TrainConfig) -> None:
        """Record the run's config."""
        write_atomically(
            self.path / "config.json", json.dumps(to_dict(config), indent=2).encode(), force=True
        )

    @property
    def model(self) -> Path:
        """Where the finished model goes."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Where the run's state is kept."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether the model is there."""
        return (self.model / "model.json").exists()

    def rewind_metrics(self, samples: int) -> None:
        """Tell the loggers that the run begins, or resumes after `samples`."""
        for logger in self.loggers:
            logger.begin(samples)

    def write_metrics(self, samples: int, **values: float) -> None:
        """Log measurements after `samples`, to six digits, and the seconds that the run has taken.

        The seconds are those of all its processes, but for what one did after its last line.
        """
        rounded = {key: float(f"{value:.6g}") for key, value in values.items()}
        seconds = round(time.monotonic() - self._started, 1)
        for logger in self.loggers:
            logger.log(samples, {"seconds": seconds, **rounded})

    def write_preview(self, samples: int, picture: Image.Image) -> None:
        """Log a picture of what the network did after so many samples."""
        for logger in self.loggers:
            logger.log_picture(samples, picture)

    def close(self) -> None:
        """Close the loggers."""
        for logger in self.loggers:
            logger.close()


def time_spent(path: Path) -> float:
    """Seconds that the run in this folder has taken, by its last whole line of metrics; 0 without one."""
    file = path / "metrics.jsonl"
    if not file.exists():
        return 0.0
    with file.open("rb") as handle:
        handle.seek(max(0, file.stat().st_size - 65_536))
        lines = handle.read().decode("utf-8", errors="replace").splitlines(keepends=True)
    return next((json.loads(line)["seconds"] for line in reversed(lines) if is_within(line, math.inf)), 0.0)


def _completed(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """The JSON of a config as this version writes it, so that a run of an older version can be resumed."""
    try:
        return json.loads(json.dumps(to_dict(read_config(data))))
    except ValueError as error:
        raise ValueError(
            f"{path} holds a run that this version cannot resume ({error}): finish it with the version that began it, "
            "choose another --out, or remove that folder to start over"
        ) from None


def _binding(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config, as JSON, that the weights depend on."""
    # What is kept as best depends on when it was looked for.
    free = _FREE - {"validate_every"} if config.get("keep") == "best" else _FREE
    kept = {key: value for key, value in config.items() if key not in free}
    return {**kept, "data": {key: value for key, value in config["data"].items() if key != "cache"}}
