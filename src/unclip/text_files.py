"""Text files of users: their encodings and line ends, read where they are certain and refused with words elsewhere."""

import codecs
import os
import re
import sys
from typing import Any

MAX_BYTES = 1 << 30

_MARKS = (
    # UTF-32's mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE_END = re.compile(r"\r\n|\r|\n")


class TextError(ValueError):
    """A file that is no text in an encoding that is read; the message names the file, the encoding and the remedy."""


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, `-` for stdin: UTF-8, or what a byte-order mark says. Raises `OSError` and `TextError`."""
    if os.fspath(path) == "-":
        return decode(_read_stdin(), "stdin")
    with open(path, "rb") as file:
        return decode(_read(file, os.fspath(path)), os.fspath(path))


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a text file, however they end, without white space around them; blank ones are left out."""
    return [line.strip() for line in split_lines(read_text(path)) if line.strip()]


def split_lines(text: str) -> list[str]:
    """Lines that end in a line feed, a carriage return, or both."""
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def decode(data: bytes, name: str) -> str:
    """Text of a file's bytes, without its byte-order mark; errors call the file `name`. Raises `TextError`."""
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(_describe(data, name, encoding, error)) from None
    if "\0" in text:
        raise TextError(
            f"{name} holds zero bytes, as UTF-16 without a byte-order mark and binary files do: save it as UTF-8"
        )
    return text


def encoding_of(head: bytes) -> str:
    """The encoding that a file's first four bytes say by a byte-order mark; UTF-8 where there is none."""
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "utf-8")


def _describe(data: bytes, name: str, encoding: str, error: UnicodeDecodeError) -> str:
    called = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8, which its byte-order mark says"}.get(
        encoding, f"{encoding.upper()}, which its byte-order mark says"
    )
    # Positions count from behind the mark.
    line = len(_LINE_END.findall(error.object[: error.start].decode("latin-1"))) + 1
    what = f"{name} is not {called}: line {line} holds the byte 0x{error.object[error.start]:02X}"
    if encoding != "utf-8":
        return f"{what}; save it as UTF-8"
    if b"\0" in data:
        return f"{what}, and it holds zero bytes, as UTF-16 without a byte-order mark and binary files do; save it as UTF-8"
    guess = "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in data) else "ISO-8859-1"
    return (
        f"{what}, as files in {guess} (Latin 1) or another older encoding do; save it as UTF-8, such as by "
        f"`iconv -f {guess} -t UTF-8`"
    )


def _read(file: Any, name: str) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise TextError(f"{name} has more than {MAX_BYTES >> 20} MiB: give a smaller file")
    return data


def _read_stdin() -> bytes:
    stream: Any = sys.stdin
    if stream is None:
        raise TextError("stdin is closed: give a file")
    if (buffer := getattr(stream, "buffer", None)) is not None:
        return _read(buffer, "stdin")
    # A stream of text in its place, as tests and notebooks have.
    return stream.read().encode("utf-8", "surrogateescape")
