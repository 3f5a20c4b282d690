"""Drawing of the pictures to be judged, in batches; each is kept as a file with its provenance and read from it again."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from unclip.config import to_dict
from unclip.errors import RequestError
from unclip.generate.image import Image
from unclip.generate.model import Model
from unclip.generate.operations import Generate
from unclip.generate.replay import read_replay
from unclip.images import PictureError, to_tensor, to_uint8, write_atomically
from unclip.stages.sampling import Sampling

Report = Callable[[int, int], object]
"""Called with the number of finished pictures, and of all pictures."""


DrawFiles = Callable[[Sequence[Generate], Sequence[Path], Report], object]
"""Draws requests of one picture each to files, elsewhere, such as on a cluster."""


class Pictures(NamedTuple):
    """Pixels, and the mean seconds per picture; None where no picture was timed."""

    pixels: UInt8[Tensor, "n 3 s s"]
    seconds: float | None


class TimeLeft:
    """Estimate of the remaining time as text, empty until two calls have shown the speed."""

    def __init__(self):
        self._first: tuple[int, float] | None = None

    def __call__(self, done: int, of: int) -> str:
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
        before, started = self._first
        if done in (before, of):
            return ""
        return f", {duration((of - done) * (now - started) / (done - before))} left"


def duration(seconds: float) -> str:
    """Duration as text: 40 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def draw_pictures(
    model: Model,
    asked: Sequence[tuple[str, int]],
    sampling: Sampling,
    *,
    size: int | None = None,
    folder: Path | None = None,
    batch: int = 16,
    report: Report = lambda done, of: None,
    elsewhere: DrawFiles | None = None,
) -> Pictures:
    """Pictures of (caption, seed) pairs, `size` pixels a side (default: the decoder's size).

    With a `folder`, each picture is kept there. A picture of the same request and model that is already there is read,
    not drawn. With `elsewhere`, that draws the others into the folder. Raises `RequestError` for a size that the model cannot
    make, and ValueError for pictures that are drawn elsewhere and kept nowhere.
    """
    size = model.sizes[0] if size is None else size
    if size not in model.sizes:
        raise RequestError(
            f"{model.name!r} makes pictures of {', '.join(map(str, model.sizes))} pixels, not {size}"
        )
    requests = [Generate(prompt=prompt, seed=seed, size=size, sampling=sampling) for prompt, seed in asked]
    home = None if folder is None or not model.digest else folder / name_of(model, sampling, size)
    files = [None if home is None else home / f"{_digest([prompt, seed])}.png" for prompt, seed in asked]
    found: dict[int, UInt8[Tensor, "3 s s"]] = {}
    for number, (file, request) in enumerate(zip(files, requests)):
        if file is not None and (picture := _read(file, request)) is not None:
            found[number] = picture
    missing = [number for number in range(len(asked)) if number not in found]
    report(len(found), len(asked))
    if elsewhere is not None and missing:
        _draw_elsewhere(elsewhere, requests, files, found, missing, report)
        missing = []
    times = Times.read(home)
    for start in range(0, len(missing), batch):
        numbers = missing[start : start + batch]
        started = time.monotonic()
        made = model.run_batch([requests[number] for number in numbers])
        times = Times(times.pictures + len(numbers), times.seconds + time.monotonic() - started)
        for number, picture in zip(numbers, made):
            found[number] = to_uint8(to_tensor(picture.image))
            if (file := files[number]) is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                picture.save(file, force=True)
        times.write(home)
        report(len(found), len(asked))
    pixels = torch.stack([found[number] for number in range(len(asked))])
    return Pictures(pixels, times.seconds / times.pictures if times.pictures else None)


def _draw_elsewhere(
    elsewhere: DrawFiles,
    requests: Sequence[Generate],
    files: Sequence[Path | None],
    found: dict[int, UInt8[Tensor, "3 s s"]],
    missing: Sequence[int],
    report: Report,
) -> None:
    """Have the missing pictures drawn elsewhere, and read them. Raises ValueError for one that is not there then."""
    before, places = len(found), [file for file in (files[number] for number in missing) if file is not None]
    if len(places) < len(missing):
        raise ValueError("pictures that are drawn elsewhere need a folder to be kept in: --pictures FOLDER")
    elsewhere(
        [requests[number] for number in missing],
        places,
        lambda done, of: report(min(before + done, len(requests)), len(requests)),
    )
    for number, file in zip(missing, places):
        picture = _read(file, requests[number])
        if picture is None:
            raise ValueError(
                f"{file} was drawn elsewhere and is no picture of its request: remove it and run again"
            )
        found[number] = picture


class Times(NamedTuple):
    """Number of timed pictures of a folder and their total seconds, kept in the folder for runs that only read it."""

    pictures: int = 0
    seconds: float = 0.0

    FILE = "times.json"

    @classmethod
    def read(cls, folder: Path | None) -> "Times":
        """Times kept in a folder; zero where there are none, or they are damaged."""
        try:
            return cls(**json.loads((folder / cls.FILE).read_text())) if folder else cls()
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, folder: Path | None) -> None:
        """Keep the times in a folder, if there is one."""
        if folder is not None:
            write_atomically(folder / self.FILE, json.dumps(self._asdict()).encode(), force=True)


def name_of(model: Model, sampling: Sampling, size: int) -> str:
    """Folder name of pictures: their size, and a hash of the model's digest, what computes it and the sampling settings."""
    backend = model.parts.backend
    how = [
        model.parts.number_type if model.parts.widened else str(model.parts.dtype),
        *([f"packed {model.parts.packed}"] if model.parts.packed else []),
        *(() if backend is None else backend.record.values()),
    ]
    return f"{size}-{_digest([model.digest, to_dict(sampling), *how])}"


def _read(file: Path, request: Generate) -> UInt8[Tensor, "3 s s"] | None:
    """Pixels of a kept picture; None where it is missing, damaged, or of another request."""
    try:
        picture = Image.open(file)
        recorded = read_replay(picture.provenance).request
    except (PictureError, RequestError, OSError):
        return None
    if not isinstance(recorded, Generate):
        return None
    if (recorded.prompt, recorded.seed, recorded.size) != (request.prompt, request.seed, request.size):
        return None
    return to_uint8(to_tensor(picture.image))


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
