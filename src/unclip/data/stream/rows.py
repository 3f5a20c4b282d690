"""Rows of tables of any size, one after the other: .jsonl, .csv, .tsv and .parquet, on a disk or a store."""

import csv
import io
from collections.abc import Iterator, Mapping
from io import BufferedReader
from typing import Any

from unclip.data.sample import captions_in, read_json
from unclip.data.stream.store import LocalStore, Store
from unclip.data.tables import FILE_COLUMNS, column_names, separator_in
from unclip.text_files import encoding_of


def plain(row: Mapping[Any, Any]) -> dict[Any, Any]:
    """A row as JSON has it: bytes are text in UTF-8, or nothing where they are not, and other kinds are printed."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def rows_of(store: Store, name: str) -> Iterator[Mapping[Any, Any]]:
    """The rows of a table. Those of a .csv that are longer than its first line have the rest under None.

    Raises ValueError naming the file and the line that cannot be read.
    """
    ending = name.lower().rpartition(".")[2]
    with store.open(name) as file:
        if ending == "parquet":
            yield from _parquet_rows(file, name)
            return
        text = io.TextIOWrapper(file, encoding=_encoding(file), newline="")
        try:
            yield from _csv_rows(text, name) if ending in ("csv", "tsv") else _json_rows(text, name)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name} is not {error.encoding.upper()} ({error.reason}): save it as UTF-8, such as by "
                "`iconv -f ISO-8859-1 -t UTF-8` where it is in Latin 1"
            ) from error


def _encoding(file: BufferedReader) -> str:
    head = file.read(4)
    file.seek(0)
    return encoding_of(head)


def _json_rows(text: io.TextIOWrapper, table: str) -> Iterator[Mapping[Any, Any]]:
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            row = read_json(line)
        except ValueError as error:
            raise ValueError(f"{table}, line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{table}, line {number}: not a JSON object")
        yield row


def _first_line(text: io.TextIOWrapper) -> str:
    """The next line that is not blank; "" at the end."""
    return next((line for line in iter(text.readline, "") if line.strip()), "")


def _csv_rows(text: io.TextIOWrapper, table: str) -> Iterator[Mapping[Any, Any]]:
    first = _first_line(text)
    # Excel's way to name the separator.
    if first.lower().startswith("sep="):
        first = _first_line(text)
    separator = separator_in(first.rstrip("\r\n"))
    if separator is None:
        raise ValueError(
            f"{table}: its first line names none of the columns {', '.join(FILE_COLUMNS)}, separated by a comma, tab, "
            "semicolon or |"
        )
    names = column_names(next(csv.reader([first], delimiter=separator)), table)
    reader = csv.DictReader(text, names, delimiter=separator, strict=True)
    while True:
        begun = reader.line_num + 2
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{table}, line {begun}: {error} (is a quotation mark not closed?)") from error
        if row is None:
            return
        if any("\0" in value for value in row.values() if isinstance(value, str)):
            raise ValueError(
                f"{table}, line {begun}: holds zero bytes, as UTF-16 without a byte-order mark and binary files do: save it as "
                "UTF-8"
            )
        yield row


def _parquet_rows(file: BufferedReader, table: str) -> Iterator[Mapping[Any, Any]]:
    from unclip.data.stream.parquet import open_parquet

    # What pyarrow raises for a damaged file is a ValueError, and names no file.
    try:
        for batch in open_parquet(file, table).iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    except ValueError as error:
        raise ValueError(f"{table}: {error}") from error


def captions_of(file: str) -> list[str]:
    """The first caption (`prompt`, `caption` or `text`) of each row of a table on this disk. Raises ValueError for none."""
    folder, _, name = file.rpartition("/")
    found = []
    for number, row in enumerate(rows_of(LocalStore(folder or "."), name), start=1):
        try:
            captions = captions_in(row)
        except ValueError as error:
            raise ValueError(f"{file}, row {number}: {error}") from error
        if not captions:
            raise ValueError(
                f"{file}, row {number}: no text in a column named prompt, caption, captions or text"
            )
        found.append(captions[0])
    return found
