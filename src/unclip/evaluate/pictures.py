"""Drawing the pictures to be judged: in batches, each kept as a file with its recipe, so that a stopped run goes on."""

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
from unclip.generate.picture import Picture
from unclip.generate.progress import Reporter
from unclip.generate.settings import Settings
from unclip.generate.system import System
from unclip.generate.text_to_image import Order, check_size, draw
from unclip.images import PictureError, to_tensor, to_uint8, write_atomically

Report = Callable[[int, int], object]
"""Called with how many pictures are done, and of how many."""


class Pictures(NamedTuple):
    """Pixels, and the mean seconds that a picture took, when they were drawn; None where that is not known."""

    pixels: UInt8[Tensor, "n 3 s s"]
    seconds: float | None


class TimeLeft:
    """Called with how much is done, and of how much: says how long the rest takes, once that can be told."""

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
    """A time for people: 40 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def draw_pictures(
    system: System,
    asked: Sequence[tuple[str, int]],
    settings: Settings,
    *,
    size: int | None = None,
    folder: Path | None = None,
    batch: int = 16,
    report: Report = lambda done, of: None,
) -> Pictures:
    """Pictures of `asked` (caption, seed) pairs, `size` pixels a side (default: the decoder's size).

    With a `folder`, each is kept there, and one that is there already, with this recipe, is read instead of drawn.
    """
    size = check_size(system, system.sizes[0] if size is None else size)
    home = None if folder is None or not system.weights else folder / name_of(system, settings, size)
    files = [None if home is None else home / f"{_digest([prompt, seed])}.png" for prompt, seed in asked]
    found: dict[int, UInt8[Tensor, "3 s s"]] = {}
    for number, (file, (prompt, seed)) in enumerate(zip(files, asked)):
        if file is not None and (picture := _read(file, prompt, seed, size)) is not None:
            found[number] = picture
    missing = [number for number in range(len(asked)) if number not in found]
    report(len(found), len(asked))
    times = Times.read(home)
    for start in range(0, len(missing), batch):
        numbers = missing[start : start + batch]
        orders = [Order(asked[number][0], None, asked[number][1]) for number in numbers]
        started = time.monotonic()
        made = draw(system, orders, settings, size, Reporter(None, 1, len(orders)))
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


class Times(NamedTuple):
    """How many pictures of a folder were timed, and their seconds in all: kept there, for those who only read them."""

    pictures: int = 0
    seconds: float = 0.0

    FILE = "times.json"

    @classmethod
    def read(cls, folder: Path | None) -> "Times":
        """What the folder tells; nothing where it has none, or a damaged one."""
        try:
            return cls(**json.loads((folder / cls.FILE).read_text())) if folder else cls()
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, folder: Path | None) -> None:
        """Keep them in the folder, if there is one."""
        if folder is not None:
            write_atomically(folder / self.FILE, json.dumps(self._asdict()).encode(), force=True)


def name_of(system: System, settings: Settings, size: int) -> str:
    """A folder's name for what draws: the model and a digest of its weights, the settings and the number types."""
    return f"{size}-{_digest([system.weights, to_dict(settings), str(system.dtype)])}"


def _read(file: Path, prompt: str, seed: int, size: int) -> UInt8[Tensor, "3 s s"] | None:
    try:
        picture = Picture.open(file)
    except (PictureError, OSError):
        return None
    recipe = picture.recipe
    if (recipe.get("prompt"), recipe.get("seed"), recipe.get("size")) != (prompt, seed, size):
        return None
    return to_uint8(to_tensor(picture.image))


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
