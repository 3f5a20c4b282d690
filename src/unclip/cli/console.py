"""What a command says: results on stdout, everything else on stderr, bars only where a person watches."""

import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class UsageError(ValueError):
    """A command line that asks for something impossible; the message names the value and the remedy."""


def result(text: str) -> None:
    """Write one line of result to stdout, at once: a reader may be waiting for it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def result_json(value: Any) -> None:
    """Write `value` to stdout as one indented JSON document."""
    result(json.dumps(value, indent=2, ensure_ascii=False))


def tell(text: str) -> None:
    """Write one line for the person at the terminal to stderr."""
    sys.stderr.write(f"unclip: {text}\n")
    sys.stderr.flush()


class _ToStderr(logging.Handler):
    """Writes each message as a line for the person at the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "note: " if record.levelno >= logging.WARNING else ""
        tell(prefix + record.getMessage())


@contextmanager
def logs(*, quiet: bool = False) -> Iterator[None]:
    """Within the context, log messages of the package go to stderr: of level INFO and above, or warnings if `quiet`."""
    logger, handler = logging.getLogger("unclip"), _ToStderr()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class Progress:
    """How far a long call is: a bar where stderr is a terminal, nothing elsewhere or when `quiet`."""

    def __init__(self, *, quiet: bool = False):
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
            self._bar = tqdm(total=1.0, bar_format=form, file=sys.stderr, leave=False)

    def update(self, fraction: float, doing: str) -> None:
        """`fraction` in [0, 1] of the call is done; `doing` says what it is at."""
        if self._bar is not None:
            self._bar.set_description_str(doing, refresh=False)
            self._bar.update(fraction - self._bar.n)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Status:
    """One line that tells what a long call is at: rewritten on a terminal, elsewhere written at most every ten seconds."""

    def __init__(self, *, quiet: bool = False):
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._told = -math.inf

    def __call__(self, text: str) -> None:
        if self._quiet:
            return
        if self._terminal:
            sys.stderr.write(f"\r\033[Kunclip: {text}")
            sys.stderr.flush()
        elif time.monotonic() - self._told >= 10.0:
            tell(text)
            self._told = time.monotonic()

    def __enter__(self) -> "Status":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._terminal and not self._quiet:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
