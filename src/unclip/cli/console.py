"""What a command says: results on stdout, everything else on stderr, bars only where a person watches."""

import json
import sys
import time
from typing import Any


class UsageError(ValueError):
    """A command line that asks for something impossible; the message names the value and the remedy."""


def result(text: str) -> None:
    """Write one line of result to stdout."""
    sys.stdout.write(f"{text}\n")


def result_json(value: Any) -> None:
    """Write `value` to stdout as one indented JSON document."""
    result(json.dumps(value, indent=2, ensure_ascii=False))


def tell(text: str) -> None:
    """Write one line for the person at the terminal to stderr."""
    sys.stderr.write(f"unclip: {text}\n")
    sys.stderr.flush()


class Progress:
    """Shows the stages of a long call: a bar on a terminal, one line a finished stage elsewhere, or nothing."""

    def __init__(self, *, quiet: bool = False):
        self._quiet = quiet
        self._stage = ""
        self._bar: Any = None
        self._started = 0.0
        self._step = 0

    def update(self, stage: str, step: int, total: int | None = None) -> None:
        """`stage` has finished `step` of its `total` steps."""
        if self._quiet:
            return
        if stage != self._stage:
            self._finish_stage()
            self._stage, self._started = stage, time.monotonic()
            if sys.stderr.isatty():
                from tqdm import tqdm

                self._bar = tqdm(total=total, desc=stage, file=sys.stderr, leave=False)
        if self._bar is not None:
            self._bar.update(step - self._step if step >= self._step else 0)
        self._step = step

    def _finish_stage(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._stage:
            tell(f"{self._stage}: {self._step} steps in {time.monotonic() - self._started:.1f} s")
        self._stage, self._step = "", 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self._finish_stage()
        elif self._bar is not None:
            self._bar.close()
