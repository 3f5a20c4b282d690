"""Where a run's measurements and previews go: JSON lines always, TensorBoard or a logger of the user's on request.

class Mine:                                  # in mine.py
    def __init__(self, folder): ...          # the run's folder
    def begin(self, samples): ...
    def log(self, samples, values): ...
    def log_picture(self, samples, picture): ...
    def close(self): ...

unclip train decoder ... --set 'loggers=["tensorboard", "mine:Mine"]'
train(config, loggers=[Mine(config.out)])    # from Python
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from unclip.config import ConfigError
from unclip.disk import disk_full, is_full
from unclip.images import save_picture, write_atomically
from unclip.train.checkpoint_files import ROOM


@runtime_checkable
class MetricsLogger(Protocol):
    """Receives the measurements of a run. All methods are called on the training thread."""

    def begin(self, samples: int) -> None:
        """The run begins, or resumes after `samples`: what was logged later will be logged again."""
        ...

    def log(self, samples: int, values: Mapping[str, float]) -> None:
        """Measurements after `samples`, among them `seconds`, the time that the run has taken."""
        ...

    def log_picture(self, samples: int, picture: Image.Image) -> None:
        """A preview after `samples`."""
        ...

    def close(self) -> None:
        """The run ends or pauses; further measurements may follow."""
        ...


class FolderLogger:
    """Writes metrics.jsonl, a JSON object per line, and previews/SAMPLES.png into the run's folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.file = self.folder / "metrics.jsonl"

    def begin(self, samples: int) -> None:
        """Remove the lines of steps after `samples`."""
        if self.file.exists():
            lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = "".join(line for line in lines if is_within(line, samples))
            write_atomically(self.file, kept.encode(), force=True)

    def log(self, samples: int, values: Mapping[str, float]) -> None:
        """Append one line, numbers to six digits."""
        line = json.dumps({"samples": samples, **values}) + "\n"
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            if not is_full(error):
                raise
            raise disk_full(self.file, len(line), what="the run's measurements", remedy=ROOM) from error

    def log_picture(self, samples: int, picture: Image.Image) -> None:
        """Write a preview's PNG."""
        folder = self.folder / "previews"
        folder.mkdir(exist_ok=True)
        save_picture(picture, folder / f"{samples:09d}.png", force=True)

    def close(self) -> None:
        """Nothing is open between lines."""


class TensorBoardLogger:
    """Writes TensorBoard events into the folder `tensorboard` of a run; needs `pip install 'unclip[tensorboard]'`."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder) / "tensorboard"
        self._writer: Any = None

    def begin(self, samples: int) -> None:
        """Open the events; those of steps after `samples` are superseded."""
        self.close()
        self._open(purge_step=samples + 1)

    def log(self, samples: int, values: Mapping[str, float]) -> None:
        """Write each value as a scalar."""
        for name, value in values.items():
            self._open().add_scalar(name, value, global_step=samples)

    def log_picture(self, samples: int, picture: Image.Image) -> None:
        """Write a preview as an image."""
        pixels = np.asarray(picture.convert("RGB"))
        self._open().add_image("preview", pixels, global_step=samples, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the events."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, **options: Any) -> Any:
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError(
                    "logging to TensorBoard needs its package: pip install 'unclip[tensorboard]'"
                ) from error
            self._writer = SummaryWriter(str(self.folder), **options)
        return self._writer


#: Names that `loggers` of a run's config may hold, beside MODULE:CLASS.
LOGGERS = {"tensorboard": TensorBoardLogger}


def build_loggers(names: Sequence[str], folder: str | Path) -> list[MetricsLogger]:
    """The loggers of a run's config. Raises `ConfigError` for a name that is neither known nor MODULE:CLASS."""
    return [_factory(name)(folder) for name in names]


def _factory(name: str) -> Any:
    if name in LOGGERS:
        return LOGGERS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"loggers: {name!r} is not one of {', '.join(LOGGERS)}, nor MODULE:CLASS")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"loggers: {name!r} cannot be imported ({error})") from error


def is_within(line: str, samples: float) -> bool:
    """Whether a line of metrics.jsonl is whole (a killed run's last one may not be) and not after `samples`."""
    try:
        return json.loads(line)["samples"] <= samples and line.endswith("\n")
    except ValueError:
        return False
