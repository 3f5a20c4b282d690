"""A folder of pictures with captions: `x.png` beside `x.txt`, `x.caption` or `x.json`, or tables that name the files."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unclip.data.decode import EXTENSIONS, MAX_BYTES, decode
from unclip.data.sample import (
    BadSample,
    BadSamples,
    Sample,
    captions_in,
    digest_of,
    read_json,
    shown,
    weight_in,
)
from unclip.data.shard_files import OTHER_PICTURES
from unclip.data.tables import FILE_COLUMNS, TABLES, read_table
from unclip.text_files import read_lines, read_text

#: Files with a picture's text, in the order in which they are looked for, in small or capital letters.
_TEXTS = (".json", ".txt", ".caption")


class _Found(NamedTuple):
    key: str
    path: Path
    record: Mapping[str, Any]
    place: str = ""


class FolderDataset:
    """Samples of a folder, sorted by name; sub-folders count. Pictures without caption are bad samples, not errors.

    Where a folder, or a sub-folder, has one of `TABLES`, the samples in it are the table's rows, in its order; several
    rows of one picture are one sample. Files outside of the folder are not followed, pictures and captions alike: they
    make bad samples. Pictures that are not used are noted in `bad`.
    """

    def __init__(self, folder: str | Path, bad: BadSamples | None = None):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} is not a folder")
        self.bad = bad if bad is not None else BadSamples()
        self._root = self.folder.resolve()
        self._named: set[Path] = set()
        self._read: set[Path] = set()
        self._samples: list[tuple[Sample, Path]] = []
        places: dict[str, int] = {}
        before = len(self.bad)
        for found in self._all():
            try:
                sample = self._sample(found)
            except (OSError, ValueError, RuntimeError) as error:
                self.bad.record(found.key, str(error))
                continue
            if sample.key not in places:
                places[sample.key] = len(self._samples)
                self._samples.append((sample, found.path))
                continue
            first, path = self._samples[places[sample.key]]
            captions = tuple(dict.fromkeys([*first.captions, *sample.captions]))
            self._samples[places[sample.key]] = (
                Sample(first.key, captions, first.weight, {**first.meta, "captions": list(captions)}),
                path,
            )
            self.bad.note(sample.key, "is in several rows: their captions are one sample's")
        self.bad.check(len(self._samples) + len(self.bad) - before)

    def _sample(self, found: _Found) -> Sample:
        self._check_inside(found.path)
        if not found.path.is_file():
            raise ValueError("no such file")
        if not (captions := captions_in(found.record)):
            raise ValueError("has no caption")
        try:
            weight = weight_in(found.record)
        except ValueError as error:
            raise ValueError(f"{error}{found.place}") from None
        return Sample(found.key, captions, weight, dict(found.record))

    def _check_inside(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self._root):
            raise ValueError("points outside of the folder")

    def _all(self) -> Iterator[_Found]:
        files = self._files()
        tables = self._tables(files)
        for table in tables:
            yield from self._from_table(table)
        owners = {table.parent: table for table in tables}
        loose = []
        for path in files:
            ending = path.suffix[1:].lower()
            owner = next((owners[one] for one in path.parents if one in owners), None)
            if ending in OTHER_PICTURES:
                self.bad.note(self._key(path), f"is none of {', '.join(EXTENSIONS)}")
            elif ending in EXTENSIONS and owner is None:
                loose.append(path)
            elif ending in EXTENSIONS and path not in self._named:
                self.bad.note(self._key(path), f"is in no row of {self._key(owner)}" if owner else "")
        yield from self._from_pairs(loose, files)
        self._note_unread_texts(loose, files, owners)

    def _files(self) -> list[Path]:
        """All files but hidden ones, sorted; folders that are not followed are noted."""

        def unreadable(error: OSError) -> None:
            self.bad.note(shown(str(error.filename)), f"cannot be read: {error.strerror}")

        found = []
        for parent, folders, names in os.walk(self.folder, onerror=unreadable):
            found += [Path(parent, name) for name in names if not name.startswith(".")]
            for name in folders:
                if (path := Path(parent, name)).is_symlink():
                    self.bad.note(self._key(path), "is a link to a folder, which is not followed")
        return sorted(found)

    def _tables(self, files: Sequence[Path]) -> list[Path]:
        """The tables that are read: the first of a folder, and none below another; the rest is noted."""
        every = [path for path in files if path.name.lower() in TABLES]
        every.sort(key=lambda path: (len(path.parents), path.parent, TABLES.index(path.name.lower())))
        read: dict[Path, Path] = {}
        for path in every:
            other = next((read[one] for one in path.parents if one in read), None)
            if other is None:
                read[path.parent] = path
            else:
                self.bad.note(self._key(path), f"is not read, as {self._key(other)} is")
        return list(read.values())

    def _from_table(self, table: Path) -> Iterator[_Found]:
        prefix = "" if table.parent == self.folder else f"{self._key(table.parent)}/"
        for number, row in enumerate(read_table(table), start=1):
            row_name = f"{self._key(table)} row {number}"
            name = next((row[column] for column in FILE_COLUMNS if isinstance(row.get(column), str)), None)
            if name:
                self._named.add(table.parent / name)
            if None in row:
                self.bad.record(
                    row_name, "has more fields than the first line: quote captions with separators"
                )
            elif not name:
                self.bad.record(row_name, f"has none of the columns {', '.join(FILE_COLUMNS)}")
            elif name.rpartition(".")[2].lower() not in EXTENSIONS:
                self.bad.record(prefix + shown(name), f"is none of {', '.join(EXTENSIONS)}")
            else:
                yield _Found(prefix + shown(name), table.parent / name, row, f" ({row_name})")

    def _from_pairs(self, pictures: Sequence[Path], files: Sequence[Path]) -> Iterator[_Found]:
        texts: dict[tuple[Path, str, str], Path] = {}
        for path in files:
            if path.suffix.lower() in _TEXTS:
                # Of x.TXT and x.txt the first is read, and the second noted.
                texts.setdefault((path.parent, path.stem, path.suffix.lower()), path)
        for path in pictures:
            key = self._key(path)
            names = ((path.parent, path.stem, ending) for ending in _TEXTS)
            try:
                record = self._record_of([texts[name] for name in names if name in texts])
            except (OSError, ValueError, RuntimeError) as error:
                self.bad.record(key, f"caption file: {error}")
                continue
            yield _Found(key, path, record)

    def _record_of(self, beside: Sequence[Path]) -> Mapping[str, Any]:
        """The record of a picture's caption files: of the first, with the captions of the next where a .json has none."""
        record: Mapping[str, Any] = {}
        for path in beside:
            self._check_inside(path)
            self._read.add(path)
            found = _read_text_of(path)
            record = {**record, **found}
            if path.suffix.lower() != ".json" or captions_in(record):
                break
        return record

    def _note_unread_texts(
        self, loose: Sequence[Path], files: Sequence[Path], owners: Mapping[Path, Path]
    ) -> None:
        """Note caption files that no picture took: those of no picture, of a table's folder, and second ones."""
        pictures = {(path.parent, path.stem) for path in loose}
        named = {(path.parent, path.stem) for path in self._named}
        taken: dict[tuple[Path, str], Path] = {}
        texts = [path for path in files if path.suffix.lower() in _TEXTS and path.name.lower() not in TABLES]
        for path in sorted(texts, key=lambda one: _TEXTS.index(one.suffix.lower())):
            place = (path.parent, path.stem)
            owner = next((owners[one] for one in path.parents if one in owners), None)
            if owner is not None and place in named:
                self.bad.note(self._key(path), f"is not read, as {self._key(owner)} is")
            elif place not in pictures and place not in named:
                self.bad.note(self._key(path), "no picture has its name")
            elif place in pictures:
                first = taken.setdefault(place, path)
                if path != first and path not in self._read:
                    self.bad.note(self._key(path), f"is not read, as {self._key(first)} is")

    def _key(self, path: Path) -> str:
        return shown(path.relative_to(self.folder).as_posix())

    @property
    def fingerprint(self) -> str:
        """Digest of file names, sizes, times and captions."""
        parts: list[object] = []
        for sample, path in self._samples:
            status = path.stat()
            parts += [sample.key, sample.captions, sample.weight]
            parts += [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        return digest_of(parts)

    def __len__(self) -> int:
        return len(self._samples)

    def keys(self) -> Sequence[str]:
        """File names relative to the folder, with forward slashes; bytes that are not UTF-8 are escaped."""
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


def _read_text_of(path: Path) -> Mapping[str, Any]:
    """The record in a picture's caption file."""
    if path.suffix.lower() != ".json":
        return {"captions": read_lines(path)}
    record = read_json(read_text(path))
    if not isinstance(record, dict):
        raise ValueError(f"{shown(path.name)} is not a JSON object")
    return record
