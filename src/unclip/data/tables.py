"""Tables of pictures and captions: .jsonl, .csv, .tsv and .parquet."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unclip.data.sample import read_json, shown
from unclip.text_files import read_text, split_lines

#: Tables looked for, in this order. Columns: one of `FILE_COLUMNS` and a caption.
TABLES = ("metadata.jsonl", "metadata.csv", "metadata.tsv", "metadata.parquet")
FILE_COLUMNS = ("file_name", "file", "image", "path")
_SEPARATORS = ",\t;|"


def read_table(path: Path) -> Iterator[Mapping[Any, Any]]:
    """The rows of a table. Those of a .csv that are longer than its first line have the rest under None.

    Raises ValueError naming the file and the line that cannot be read.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        yield from _read_parquet(path)
    elif ending in (".csv", ".tsv"):
        yield from _read_csv(path)
    else:
        yield from _read_jsonl(path)


def _read_jsonl(path: Path) -> Iterator[Mapping[Any, Any]]:
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if not line.strip():
            continue
        try:
            row = read_json(line)
        except ValueError as error:
            raise ValueError(f"{shown(str(path))}, line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{shown(str(path))}, line {number}: not a JSON object")
        yield row


def _read_csv(path: Path) -> Iterator[Mapping[Any, Any]]:
    text = read_text(path).lstrip("\r\n")
    first = next(iter(split_lines(text)), "")
    # Excel's way to name the separator.
    if first.lower().startswith("sep=") and len(first) == 5:
        text = text[5:].lstrip("\r\n")
        first = next(iter(split_lines(text)), "")
    separator = separator_in(first)
    if separator is None:
        raise ValueError(
            f"{shown(str(path))}: its first line names none of the columns {', '.join(FILE_COLUMNS)}, separated by a comma, "
            "tab, semicolon or |"
        )
    # With newline="" all line ends are left to the reader.
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    begun = 1
    try:
        reader.fieldnames = column_names(reader.fieldnames or (), shown(str(path)))
        while True:
            begun = reader.line_num + 1
            row = next(reader, None)
            if row is None:
                return
            yield row
    except csv.Error as error:
        raise ValueError(
            f"{shown(str(path))}, line {begun}: {error} (is a quotation mark not closed?)"
        ) from error


def column_names(names: Sequence[str], table: str) -> list[str]:
    """The first line's names without white space around them. Raises ValueError for one that comes twice."""
    found = [name.strip() for name in names]
    twice = next((name for place, name in enumerate(found) if name and name in found[:place]), None)
    if twice is not None:
        raise ValueError(
            f"{table}: its first line has the column {twice!r} twice: rename or remove one of them"
        )
    return found


def separator_in(first: str) -> str | None:
    """The separator with which the first line names a column of files."""
    for separator in _SEPARATORS:
        try:
            names = next(csv.reader([first], delimiter=separator), [])
        except csv.Error:
            continue
        if any(name.strip() in FILE_COLUMNS for name in names):
            return separator
    return None


def _read_parquet(path: Path) -> Iterator[Mapping[Any, Any]]:
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs pyarrow: install it with `pip install 'unclip[parquet]'`"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    # What pyarrow raises for a damaged file is a ValueError, and names no file.
    except ValueError as error:
        raise ValueError(f"{shown(str(path))}: {error}") from error
