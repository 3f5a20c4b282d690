"""Parquet files with picture bytes and captions, as Hugging Face datasets have them. Needs `unclip[parquet]`."""

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from io import BufferedReader, FileIO
from typing import Any

import numpy as np
from jaxtyping import Int

from unclip.data.decode import MAX_BYTES
from unclip.data.sample import digest_of
from unclip.data.stream.dataset import Fault, Record, Units
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.faults import CORRUPT, VANISHED, Faults
from unclip.data.stream.rows import plain
from unclip.data.stream.store import Entry, Store, Vanished

PICTURES = ("image", "jpg", "png", "webp", "picture", "img")
_MOST_FILES = 32


def open_parquet(file: BufferedReader, name: str) -> Any:
    """A `pyarrow.parquet.ParquetFile`. Raises ImportError with the remedy, and ValueError for a file that is none."""
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"reading {name} needs pyarrow: install it with `pip install 'unclip[parquet]'`"
        ) from error
    # Reading ahead pays where each request waits for a network.
    return parquet.ParquetFile(file, pre_buffer=not isinstance(file.raw, FileIO))


def picture_column(schema: Any) -> str | None:
    """The column of a pyarrow schema that holds picture files' bytes, or a struct with them; None without one."""
    import pyarrow as pa  # pyright: ignore[reportMissingImports]

    def holds_bytes(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(one.name == "bytes" and holds_bytes(one.type) for one in kind)
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = [one.name for one in schema if holds_bytes(one.type)]
    return next((name for name in PICTURES if name in found), found[0] if len(found) == 1 else None)


class ParquetPictures:
    """Rows of parquet files; see `unclip.data.stream.dataset.StreamDataset`. A file is a unit, its rows' keys `FILE/ROW`.

    A row group is decoded once and kept in the cache as plain bytes, from which its rows are read.
    """

    def __init__(self, store: Store, entries: Sequence[Entry], cache: DiskCache, faults: Faults):
        self.store, self.cache, self.faults = store, cache, faults
        self.entries = sorted(one for one in entries if one.name.lower().endswith(".parquet"))
        state = digest_of([store.url, *self.entries])
        summary = cache.path(f"{state}\nparquet", lambda: json.dumps(self._summarise()).encode())
        found = json.loads(summary.read_bytes())
        self._columns: list[str] = found["columns"]
        groups: list[list[int]] = found["groups"]
        self.units = Units(
            [one.name.rpartition(".")[0] for one in self.entries], [sum(counts) for counts in groups]
        )
        self._groups = [np.cumsum([0, *counts]) for counts in groups]
        faults.merge(found["faults"]["counts"], found["faults"]["names"])
        self._open: OrderedDict[int, Any] = OrderedDict()

    def _summarise(self) -> dict[str, Any]:
        groups, columns, faults = [], [], Faults()
        for one in self.entries:
            try:
                with self.store.open(one.name) as file:
                    found = open_parquet(file, one.name)
                    columns.append(picture_column(found.schema_arrow))
                    metadata = found.metadata
                    groups.append([metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)])
            except (ValueError, OSError) as error:
                # pyarrow's errors of damage are OSErrors too; a store's have types of their own.
                if isinstance(error, Vanished | ConnectionError | PermissionError):
                    raise
                faults.record(CORRUPT, one.name, str(error))
                columns.append(None)
                groups.append([])
            if groups[-1] and columns[-1] is None:
                raise ValueError(
                    f"{self.store.url}/{one.name} has no column of picture bytes: name it one of {', '.join(PICTURES)}"
                )
        return {
            "columns": columns,
            "groups": groups,
            "faults": {"counts": faults.counts, "names": faults.names},
        }

    @property
    def fingerprint(self) -> str:
        """Digest of names, sizes and rows of the files."""
        sizes = [(one.name, one.size) for one in self.entries]
        return digest_of(["parquet", *sizes, *self.units.starts.tolist()])

    def __len__(self) -> int:
        return self.units.total

    def keys(self, unit: int) -> list[str]:
        """The keys of a file's rows."""
        return [f"{self.units.names[unit]}/{row}" for row in range(self.units[unit].size)]

    def state(self, unit: int) -> str:
        """Size and time or entity tag of a file."""
        return f"{self.entries[unit].size} {self.entries[unit].stamp}"

    def read(self, indices: Sequence[int] | Int[np.ndarray, " b"]) -> list[Record | Fault]:
        """Rows by number; those of a row group together."""
        numbers = np.asarray(indices, dtype=np.int64)
        units, rows = self.units.of(numbers)
        result: dict[int, Record | Fault] = {}
        for unit in np.unique(units):
            here = np.flatnonzero(units == unit)
            starts = self._groups[int(unit)]
            groups = np.searchsorted(starts, rows[here], side="right") - 1
            for group in np.unique(groups):
                wanted = here[groups == group]
                places = rows[wanted] - starts[group]
                for number, record in zip(
                    wanted, self._of_group(int(unit), int(group), places, rows[wanted])
                ):
                    result[int(number)] = record
        return [result[number] for number in range(len(numbers))]

    def _of_group(self, unit: int, group: int, places: np.ndarray, rows: np.ndarray) -> list[Record | Fault]:
        one, prefix = self.entries[unit], self.units.names[unit]
        keys = [f"{prefix}/{row}" for row in rows]
        name = f"{self.store.url}\n{one}\n{group}\nrows 2"
        starts = self._groups[unit]
        begin = 16 * int(starts[group + 1] - starts[group])
        rows_read = []
        try:
            with self.cache.opened(name, lambda: self._packed(unit, group)) as file:
                ends = np.frombuffer(os.pread(file, begin, 0), dtype=np.int64).tolist()
                for place in places.tolist():
                    start = ends[2 * place - 1] if place else 0
                    middle, stop = ends[2 * place : 2 * place + 2]
                    rows_read.append((os.pread(file, stop - start, begin + start), middle - start))
        except Vanished as error:
            return [Fault(key, VANISHED, str(error)) for key in keys]
        except ValueError as error:
            return [Fault(key, CORRUPT, f"{one.name}: {error}") for key in keys]
        return [
            Record(key, row[:length], meta=json.loads(row[length:]))
            if 0 < length <= MAX_BYTES
            else Fault(key, CORRUPT, "has no picture")
            for key, (row, length) in zip(keys, rows_read)
        ]

    def _packed(self, unit: int, group: int) -> bytes:
        """A row group: the ends of picture and text of each row, then each row's picture and text (JSON)."""
        column = self._columns[unit]
        try:
            table = self._file(unit).read_row_group(group, use_threads=False)
        except OSError as error:
            # pyarrow's errors of damage are of this type, without a number; a disk's have one, and a store's have types of their own.
            if type(error) is not OSError or error.errno is not None:
                raise
            raise ValueError(str(error)) from error
        pictures = table.column(column).to_pylist()
        texts = table.drop_columns([column]).to_pylist()
        parts, ends, place = [], [], 0
        for picture, text in zip(pictures, texts):
            data = (picture or {}).get("bytes") if not isinstance(picture, bytes) else picture
            for part in (data or b"", json.dumps(plain(text)).encode()):
                parts.append(part)
                place += len(part)
                ends.append(place)
        return b"".join([np.array(ends, dtype=np.int64).tobytes(), *parts])

    def _file(self, unit: int) -> Any:
        if unit not in self._open:
            name = self.entries[unit].name
            while len(self._open) >= _MOST_FILES:
                self._open.popitem(last=False)[1][0].close()
            file = self.store.open(name)
            self._open[unit] = (file, open_parquet(file, name))
        self._open.move_to_end(unit)
        return self._open[unit][1]

    def close(self) -> None:
        """Close the open files; they open again when needed."""
        while self._open:
            self._open.popitem()[1][0].close()

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}
