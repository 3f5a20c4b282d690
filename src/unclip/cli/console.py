"""What a command says: results on stdout, everything else on stderr, bars only where a person watches."""

import contextlib
import json
import math
import os
import re
import sys
import threading
import time
from typing import Any


class UsageError(ValueError):
    """A command line that asks for something impossible; the message names the value and the remedy."""


# Characters that command a terminal, or make text look like another: controls of ASCII and
# Latin 1, line and paragraph separators, and those that turn the direction of writing.
_ESCAPED = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]")


def escaped(text: str, keep: str = "") -> str:
    """`text` with its control characters written out, such as \\x1b, except those in `keep`."""
    return _ESCAPED.sub(lambda match: match[0] if match[0] in keep else _written_out(match[0]), text)


def _written_out(character: str) -> str:
    return ascii(character)[1:-1]


def prepare() -> None:
    """Make the streams safe to write to, whatever they are: closed ones become the null device.

    What a stream cannot encode is written as an escape from then on. To be called before any file is opened, which would
    take the place of a closed stream.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, open to the end
        elif getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def result(text: str) -> None:
    """Write text with one line or more of result to stdout, at once: a reader may be waiting for it.

    A reader that went away, or a full disk behind the stream, does not end the command: see `take_lost`.
    """
    _print(escaped(text, keep="\n\t"))


def result_json(value: Any) -> None:
    """Write `value` to stdout as one indented JSON document, exact for whoever parses it."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    text = _ESCAPED.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    _print(text)


_lost = threading.Event()


def take_lost() -> bool:
    """Whether results could not be written to stdout, since this was last asked."""
    was = _lost.is_set()
    _lost.clear()
    return was


def _print(text: str) -> None:
    try:
        _write(sys.stdout, f"{text}\n")
    except OSError as error:
        _lost.set()
        _to_null(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            tell(f"note: results cannot be written to stdout ({error.strerror}), the command continues")


def tell(text: str) -> None:
    """Write one line for the person at the terminal to stderr."""
    with contextlib.suppress(OSError):
        _write(sys.stderr, f"unclip: {escaped(text, keep=chr(10))}\n")


def _write(stream: Any, text: str) -> None:
    """Write to a stream that may be closed, or not able to encode all of the text. Raises `OSError`."""
    if stream is None or getattr(stream, "closed", False):
        return
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _to_null(stream: Any) -> None:
    """Let the null device take what a stream still holds, so that nothing is said of it at the end of the program."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def is_terminal() -> bool:
    """Whether a person watches stderr."""
    with contextlib.suppress(ValueError, AttributeError):
        return sys.stderr.isatty()
    return False


class Progress:
    """How far a long call is: a bar where stderr is a terminal, nothing elsewhere or when `quiet`."""

    def __init__(self, *, quiet: bool = False):
        self._bar: Any = None
        if not quiet and is_terminal():
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
            self._bar = tqdm(total=1.0, bar_format=form, file=sys.stderr, leave=False)

    def update(self, fraction: float, doing: str) -> None:
        """`fraction` in [0, 1] of the call is done; `doing` says what it is at."""
        if self._bar is not None:
            self._bar.set_description_str(escaped(doing), refresh=False)
            self._bar.update(fraction - self._bar.n)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Status:
    """One line with the state of a long call: rewritten on a terminal, elsewhere written at most every ten seconds."""

    def __init__(self, *, quiet: bool = False):
        self._quiet = quiet
        self._terminal = is_terminal()
        self._told = -math.inf

    def __call__(self, text: str) -> None:
        if self._quiet:
            return
        if self._terminal:
            with contextlib.suppress(OSError):
                _write(sys.stderr, f"\r\033[Kunclip: {escaped(text)}")
        elif time.monotonic() - self._told >= 10.0:
            tell(text)
            self._told = time.monotonic()

    def __enter__(self) -> "Status":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._terminal and not self._quiet:
            with contextlib.suppress(OSError):
                _write(sys.stderr, "\r\033[K")
