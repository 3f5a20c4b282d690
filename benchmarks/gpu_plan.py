"""Rows of `gpu.py`: what is measured, in which order, and the time that a run has."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """What is measured: a picture by `what`, or training's stage `what`, in batches, in which way.

    `least` is how many seconds must be left for it to be begun. A batch of 0 is the recipe's.
    """

    part: str
    what: str
    how: str
    batch: int
    least: float = 0.0


def plan(*, tiny: bool, cuda: bool) -> list[Row]:
    """All rows, the most important ones first, and no model made twice without need."""
    one, many, most = (1, 2, 3) if tiny else (1, 16, 256)
    trained = ("decoder", "clip", "prior", "upsampler")
    rows = [Row("bundled", "unclip", "eager", batch, 4) for batch in (one, many, most)]
    rows += [Row("karlo", "unclip", "eager", one, 8), Row("karlo", "unclip", "eager", many, 12)]
    rows += [Row("karlo", "diffusers", "eager", one, 15), Row("karlo", "diffusers", "eager", many, 15)]
    rows += [Row("karlo", library, "channels last", many, 12) for library in ("diffusers", "unclip")]
    rows += [Row("training", stage, "eager", 0, 6) for stage in trained]
    # After all that is certain: a recording that fails can leave the device unusable.
    rows += [Row("bundled", "unclip", "graphs", batch, 4) for batch in (one, many)]
    rows += [Row("bundled", "unclip", "host noise", most, 4)]
    rows += [Row("karlo", "unclip", "graphs", one, 8), Row("karlo", "unclip", "host noise", many, 12)]
    rows += [Row("karlo", "diffusers", "graphs", one, 8)]
    for library in ("unclip", "diffusers"):
        rows += [Row("karlo", library, "compiled", one, 45)]
        rows += [Row("karlo", library, "compiled, graphs", one, 8)]
    rows += [Row("karlo", library, "compiled", many, 60) for library in ("unclip", "diffusers")]
    rows += [Row("training", stage, "compiled", 0, 25) for stage in trained]
    rows += [Row("bundled", "unclip", "compiled", batch, 25) for batch in (one, many, most)]
    rows += [Row("bundled", "unclip", "float32", many, 4)]
    if not cuda:
        rows = [row for row in rows if "graphs" not in row.how and row.how != "float32"]
    if tiny:
        # One of each is enough to see that it works; a compiled training step cannot be had in time.
        rows = [row for row in rows if row.how != "compiled" or (row.part != "training" and row.batch == one)]
        rows = [dataclasses.replace(row, least=0) for row in rows]
    return rows


class TimeUp(BaseException):
    """The time is up. No `Exception`: what catches those must not catch this."""


class Clock:
    """The time that a run has, from its process's start."""

    def __init__(self, seconds: float, start: float):
        self.end = start + seconds

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.end - time.monotonic()

    @contextlib.contextmanager
    def alarm(self) -> Iterator[None]:
        """`TimeUp` is raised within when the time is up, where the system has such signals."""
        if not hasattr(signal, "setitimer"):
            yield
            return

        def ring(*given: Any) -> None:
            raise TimeUp

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(self.left, 0.001))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
