"""Folder of a run: config.json, data.json, metrics.jsonl, previews/, checkpoints/, and model/ when it has finished.

data.json notes the data that the run began with, tokenizer.json the tokenizer of a CLIP.
"""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
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
from unclip.train.teachers import TEACHERS

logger = logging.getLogger(__name__)

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
    "parallel",
}
_FREE_OF_DATA = {"cache", "bad_share", "changed", "decoded_gib", "workers", "cache_gib", "embeddings"}


class DataChanged(ValueError):
    """The data are not those that the run began with; the message names what changed."""


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
    to the config's `loggers` and to the given ones. Of several processes, only the `main` one writes.
    Raises ValueError where the config names no folder, or the folder holds a run of another config.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        spent: float = 0.0,
        loggers: Sequence[MetricsLogger] = (),
        main: bool = True,
    ):
        if not config.out:
            raise ValueError("the config names no folder for the run: set out")
        self.path, self.main = Path(config.out), main
        own = [FolderLogger(self.path), *build_loggers(config.loggers, self.path), *loggers]
        self.loggers = own if main else []
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
        if not self.main:
            return
        write_atomically(
            self.path / "config.json", json.dumps(to_dict(config), indent=2).encode(), force=True
        )

    def keep_data(
        self,
        parts: Mapping[str, Mapping[str, Sequence[str]]],
        *,
        tokenizer: str | None = None,
        teachers: Mapping[str, str | None] = {},
        allow: bool = False,
    ) -> None:
        """Note the data that a run begins with; for a run that has begun, check that they are the same.

        parts: "train" and "validation" -> key -> digests of text and picture. teachers: `TEACHERS` -> digest of what the run
        learns from beside the data. Raises `DataChanged` unless `allow`.
        """
        file = self.path / "data.json"
        record = {
            "format": 1,
            **{name: teachers.get(name) for name in TEACHERS},
            **{part: {key: list(content) for key, content in found.items()} for part, found in parts.items()},
        }
        if has_begun(self.path) and file.exists():
            old = json.loads(file.read_text(encoding="utf-8"))
            changes = _changes(old, record)
            if changes and not allow:
                raise DataChanged(
                    f"{self.path} holds a run that began with other data: {'; '.join(changes)}. Bring back the data that "
                    "it began with, begin a new run with its weights (another --out, and --set init=MODEL), or let it "
                    "go on with the changed data by --set data.changed=allow (with `train all`: "
                    f"{self.path.name}.data.changed=allow)"
                )
            if changes:
                logger.warning("%s goes on with changed data: %s", self.path, "; ".join(changes))
        if tokenizer is not None:
            _write_if_other(self.path / TOKENIZER, tokenizer)
        _write_if_other(file, json.dumps(record))

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
        return any((self.model / name).exists() for name in ("model.json", "adapter_config.json"))

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


TOKENIZER = "tokenizer.json"


def has_begun(out: Path) -> bool:
    """Whether the run in this folder has a checkpoint to go on from."""
    return any((out / "checkpoints").glob("samples-*"))


def kept_tokenizer(out: str) -> str | None:
    """The tokenizer that a begun run in this folder was begun with, as JSON text."""
    file = Path(out) / TOKENIZER
    return file.read_text(encoding="utf-8") if out and has_begun(Path(out)) and file.exists() else None


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
    return {**kept, "data": {key: value for key, value in config["data"].items() if key not in _FREE_OF_DATA}}


def _write_if_other(file: Path, text: str) -> None:
    if not file.exists() or file.read_bytes() != text.encode():
        write_atomically(file, text.encode(), force=True)


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two records of data, in words."""
    added, removed, texts, pictures = [], [], [], []
    parts = ("train", "validation")
    for part in parts:
        before, after = old[part], new[part]
        added += [key for key in after if key not in before]
        removed += [key for key in before if key not in after]
        both = [key for key in before if key in after]
        texts += [key for key in both if before[key][0] != after[key][0]]
        pictures += [key for key in both if before[key][1] != after[key][1]]
    moved = [key for key in removed if key in set(added)]
    named = {
        "added": [key for key in added if key not in set(moved)],
        "removed, or cannot be read now": [key for key in removed if key not in set(moved)],
        "moved between what is learned and what is held out": moved,
        "given other captions, weights or metadata": texts,
        "given other pixels": pictures,
    }
    found = [
        f"{len(keys)} picture{'s' * (len(keys) != 1)} {'were' if len(keys) != 1 else 'was'} {what} ({_some(keys)})"
        for what, keys in named.items()
        if keys
    ]
    if not found and any(list(old[part]) != list(new[part]) for part in parts):
        found.append("the order of the pictures is another")
    # Runs of older versions noted no more than the CLIP, and not that of an autoencoder.
    found += [words for name, words in TEACHERS.items() if old.get(name) and old[name] != new[name]]
    return found


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
