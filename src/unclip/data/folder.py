"""A folder of pictures with captions: `x.png` beside `x.txt` or `x.json`, or a table that names the files."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unclip.data.decode import EXTENSIONS, MAX_BYTES, decode
from unclip.data.sample import BadSample, BadSamples, Sample, captions_in, digest_of, weight_in

#: Tables looked for, in this order. Columns: `file_name` (also `file`, `image`, `path`) and a caption.
TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_FILE_COLUMNS = ("file_name", "file", "image", "path")


class FolderDataset:
    """Samples of a folder, sorted by name; sub-folders count. Pictures without caption are bad samples, not errors.

    With one of `TABLES` in the folder its rows are the samples, in its order. A table that names a file outside of the
    folder is not followed: that row is a bad sample.
    """

    def __init__(self, folder: str | Path, bad: BadSamples | None = None):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} is not a folder")
        self.bad = bad if bad is not None else BadSamples()
        self._samples: list[tuple[Sample, Path]] = []
        table = next((self.folder / name for name in TABLES if (self.folder / name).is_file()), None)
        found = self._from_table(table) if table is not None else self._from_pairs()
        root = self.folder.resolve()
        before = len(self.bad)
        for key, path, record in found:
            try:
                if not path.resolve().is_relative_to(root):
                    raise ValueError("points outside of the folder")
                if not path.is_file():
                    raise ValueError("no such file")
                if not (captions := captions_in(record)):
                    raise ValueError("has no caption")
                self._samples.append((Sample(key, captions, weight_in(record), dict(record)), path))
            except ValueError as error:
                self.bad.record(key, str(error))
        self.bad.check(len(self._samples) + len(self.bad) - before)

    def _from_table(self, table: Path) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
        for number, row in enumerate(read_table(table), start=1):
            name = next((row[column] for column in _FILE_COLUMNS if isinstance(row.get(column), str)), None)
            if name is None:
                self.bad.record(
                    f"{table.name} row {number}", f"has none of the columns {', '.join(_FILE_COLUMNS)}"
                )
            elif name.rpartition(".")[2].lower() not in EXTENSIONS:
                self.bad.record(name, f"is none of {', '.join(EXTENSIONS)}")
            else:
                yield name, self.folder / name, row

    def _from_pairs(self) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
        for path in sorted(self.folder.rglob("*")):
            if path.suffix[1:].lower() not in EXTENSIONS or path.name.startswith("."):
                continue
            key = path.relative_to(self.folder).as_posix()
            record: Mapping[str, Any] = {}
            try:
                if (beside := path.with_suffix(".json")).is_file():
                    record = json.loads(beside.read_text(encoding="utf-8"))
                    if not isinstance(record, dict):
                        raise ValueError(f"{beside.name} is not a JSON object")
                elif (beside := path.with_suffix(".txt")).is_file():
                    record = {"captions": beside.read_text(encoding="utf-8").splitlines()}
            except (OSError, ValueError) as error:
                self.bad.record(key, f"caption file: {error}")
                continue
            yield key, path, record

    @property
    def fingerprint(self) -> str:
        """Digest of file names, sizes, times and captions."""
        parts: list[object] = []
        for sample, path in self._samples:
            status = path.stat()
            parts += [sample.key, sample.captions, sample.weight, status.st_size, status.st_mtime_ns]
        return digest_of(parts)

    def __len__(self) -> int:
        return len(self._samples)

    def keys(self) -> Sequence[str]:
        """File names relative to the folder, with forward slashes."""
        return [sample.key for sample, _ in self._samples]

    def info(self, index: int) -> Sample:
        """Captions, weight and the table's row."""
        return self._samples[index][0]

    def picture(self, index: int, size: int | None) -> np.ndarray:
        """RGB uint8 (3, h, w), see :func:`unclip.data.decode.decode`. Raises BadSample."""
        sample, path = self._samples[index]
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"more than the {MAX_BYTES} bytes allowed")
            return decode(path.read_bytes(), size)
        except (OSError, ValueError) as error:
            raise BadSample(sample.key, str(error)) from error


def read_table(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a .jsonl, .csv or .parquet table. Raises ValueError naming the line that cannot be read."""
    if path.suffix == ".parquet":
        yield from _read_parquet(path)
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    else:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{path}, line {number}: not a JSON object")
                yield row


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs pyarrow: install it with `pip install 'unclip[parquet]'`"
        ) from error
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()
