"""A catalogue of loose pictures and their captions: an SQLite file, so that folders and tables of any size need no memory.

It is built once for a listing of the folder, in the cache, and read by sample number.
"""

import hashlib
import json
import os
import posixpath
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from unclip.data.decode import EXTENSIONS, MAX_BYTES
from unclip.data.sample import captions_in, digest_of, shown
from unclip.data.shard_files import OTHER_PICTURES
from unclip.data.stream.dataset import Fault, Record, Units
from unclip.data.stream.faults import CORRUPT, DUPLICATE, TEXT, UNUSED, VANISHED, Faults
from unclip.data.stream.rows import plain, rows_of
from unclip.data.stream.selection import SUMMARY
from unclip.data.stream.sidecar import ENDING
from unclip.data.stream.store import Entry, Store, Vanished
from unclip.data.tables import FILE_COLUMNS, TABLES

UNIT = 10_000
"""Samples of a unit of batch work."""
_TEXTS = ("json", "txt", "caption")
#: Endings of all files that are read.
_READ = (*EXTENSIONS, *_TEXTS, *(name.rpartition(".")[2] for name in TABLES))
#: What is kept changes with this number.
_VERSION = 5
_PAGE = 20_000


class Catalogue:
    """Samples of loose pictures, sorted by key; see `unclip.data.stream.dataset.StreamDataset`.

    A picture's captions are in the table of its folder, or in a `.json`, `.txt` or `.caption` file beside it. Names that are
    not UTF-8 are kept as bytes; keys show them with escapes.
    """

    def __init__(self, store: Store, file: Path, fingerprint: str, faults: Faults):
        self.store, self.file, self.faults = store, file, faults
        self._fingerprint = fingerprint
        self._connection: tuple[tuple[int, int], sqlite3.Connection] | None = None
        state = json.loads(self._ask("SELECT value FROM state")[0][0])
        faults.merge(state["counts"], state["names"])
        self._count = int(state["count"])
        starts = range(0, self._count, UNIT)
        counts = [min(UNIT, self._count - start) for start in starts]
        self.units = Units([f"samples-{number:06d}" for number in range(len(counts))], counts)

    @property
    def fingerprint(self) -> str:
        """Digest of names, sizes and times of the files."""
        return self._fingerprint

    def __len__(self) -> int:
        return self._count

    def keys(self, unit: int) -> list[str]:
        """The names of a unit's pictures."""
        _, start, count = self.units[unit]
        found = self._ask(
            "SELECT key FROM samples WHERE id >= ? AND id < ? ORDER BY id", start, start + count
        )
        return [key for (key,) in found]

    def state(self, unit: int) -> str:
        """Digest of names, sizes and times of a unit's pictures."""
        _, start, count = self.units[unit]
        question = "SELECT key, size, stamp FROM samples WHERE id >= ? AND id < ? ORDER BY id"
        return digest_of([part for row in self._ask(question, start, start + count) for part in row])[:32]

    def read(self, indices: Sequence[int] | Int[np.ndarray, " b"]) -> list[Record | Fault]:
        """Samples by number."""
        return [self._read(int(index)) for index in indices]

    def _read(self, index: int) -> Record | Fault:
        rows = self._ask("SELECT key, size, file, json, text, record FROM samples WHERE id = ?", index)
        if not rows:
            raise IndexError(f"sample numbers lie in [0, {self._count}), not {index}")
        key, size, file, *texts, record = rows[0]
        try:
            if size > MAX_BYTES:
                return Fault(key, CORRUPT, f"{size} bytes are more than the {MAX_BYTES} allowed")
            picture = self.store.get(os.fsdecode(file))
            if record is not None:
                return Record(key, picture, meta=json.loads(record))
            beside = [None if one is None else self.store.get(os.fsdecode(one)) for one in texts]
            return Record(key, picture, json=beside[0], text=beside[1])
        except Vanished as error:
            return Fault(key, VANISHED, str(error))

    def _ask(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        # Connections belong to one process and thread.
        owner, found = (os.getpid(), threading.get_ident()), self._connection
        if found is None or found[0] != owner:
            uri = f"{self.file.resolve().as_uri()}?mode=ro&immutable=1"
            found = self._connection = (owner, sqlite3.connect(uri, uri=True))
        # Another thread may have put its own in place of it.
        return found[1].execute(question, values).fetchall()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}


def open_catalogue(store: Store, folder: Path, faults: Faults, table: str | None = None) -> Catalogue:
    """The catalogue of a store's pictures, found in `folder` or built there. table: of this one's rows alone."""
    state = _state_of(store, table)
    file = folder / f"{state}.catalogue"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{secrets.token_hex(8)}.part"
        try:
            _build(store, partial, table)
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    return Catalogue(store, file, state, faults)


def _files(store: Store) -> Iterator[Entry]:
    """The files but for sidecars and selections, which are made from the data and may lie among them."""
    for one in store.files():
        if not one.name.endswith(ENDING) and one.name.rpartition("/")[2] != SUMMARY:
            yield one


def _state_of(store: Store, table: str | None) -> str:
    """Digest of a listing in whatever order it comes: the sum of its entries' own digests."""
    total = 0
    for one in _files(store):
        # Sidecars may be written among the pictures, and change nothing of them.
        if one.name.rpartition(".")[2].lower() not in _READ and one.name != table:
            continue
        digest = hashlib.blake2b("\n".join(map(str, one)).encode("utf-8", "surrogatepass"), digest_size=16)
        total += int.from_bytes(digest.digest(), "big")
    ends = f"{_VERSION}\n{store.url}\n{table}\n{total % (1 << 128)}"
    return hashlib.blake2b(ends.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _build(store: Store, file: Path, table: str | None) -> None:
    faults = Faults()
    with sqlite3.connect(file) as database:
        database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;"
            "CREATE TABLE state (value TEXT);"
            "CREATE TABLE pictures (key TEXT PRIMARY KEY, stem TEXT, size INTEGER, listed INTEGER, file BLOB, stamp TEXT) WITHOUT ROWID;"
            "CREATE TABLE texts (stem TEXT, rank INTEGER, file BLOB, PRIMARY KEY (stem, rank)) WITHOUT ROWID;"
            "CREATE TABLE rows (key TEXT, number INTEGER, record TEXT, PRIMARY KEY (key, number)) WITHOUT ROWID;"
            "CREATE TABLE samples (id INTEGER PRIMARY KEY, key TEXT, size INTEGER, file BLOB, stamp TEXT, json BLOB, text BLOB, record TEXT);"
        )
        tables = _list(store, database, table, faults)
        for name in tables:
            _add_rows(store, database, name, faults)
        owners = {shown(name.rpartition("/")[0]): shown(name) for name in tables}
        count = _join(database, owners, faults)
        lonely = "SELECT file FROM texts WHERE stem NOT IN (SELECT stem FROM pictures) ORDER BY stem"
        for (name,) in database.execute(lonely):
            faults.record(UNUSED, shown(os.fsdecode(name)), "no picture has its name")
        for name in ("pictures", "texts", "rows"):
            database.execute(f"DROP TABLE {name}")
        state = {"count": count, "counts": faults.counts, "names": faults.names}
        database.execute("INSERT INTO state VALUES (?)", (json.dumps(state),))
    database.close()


def _list(store: Store, database: sqlite3.Connection, table: str | None, faults: Faults) -> list[str]:
    """Note pictures and caption files; the tables to read: the first of a folder, and none below another; the rest is noted."""
    tables: list[str] = []
    for page in _pages(_files(store)):
        pictures, texts = [], []
        for name, size, stamp in page:
            stem, _, ending = name.rpartition(".")
            ending = ending.lower()
            if name.rpartition("/")[2].lower() in TABLES:
                tables.append(name)
            elif ending in EXTENSIONS:
                pictures.append((shown(name), shown(stem), size, 0, os.fsencode(name), stamp))
            elif ending in OTHER_PICTURES:
                faults.record(UNUSED, shown(name), f"is none of {', '.join(EXTENSIONS)}")
            elif ending in _TEXTS:
                texts.append((shown(stem), _TEXTS.index(ending), os.fsencode(name)))
        database.executemany("INSERT OR IGNORE INTO pictures VALUES (?, ?, ?, ?, ?, ?)", pictures)
        database.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", texts)
    if table is not None:
        return [table]
    read: dict[str, str] = {}
    tables.sort(key=lambda name: (name.count("/"), TABLES.index(name.rpartition("/")[2].lower())))
    for name in tables:
        folder = name.rpartition("/")[0]
        other = next((one for one in read if not one or f"{folder}/".startswith(f"{one}/")), None)
        if other is None:
            read[folder] = name
        else:
            faults.record(UNUSED, shown(name), f"is not read, as {shown(read[other])} is")
    return list(read.values())


def _add_rows(store: Store, database: sqlite3.Connection, table: str, faults: Faults) -> None:
    folder = table.rpartition("/")[0]
    prefix = f"{shown(folder)}/" if folder else ""
    for page in _pages(enumerate(rows_of(store, table), start=1)):
        found = []
        for number, row in page:
            name = next(
                (row[one] for one in FILE_COLUMNS if isinstance(row.get(one), str) and row[one]), None
            )
            if None in row:
                faults.record(TEXT, f"{shown(table)} row {number}", "has more fields than the first line")
            elif name is None:
                faults.record(
                    TEXT, f"{shown(table)} row {number}", f"has none of the columns {', '.join(FILE_COLUMNS)}"
                )
            elif name.rpartition(".")[2].lower() not in EXTENSIONS:
                faults.record(CORRUPT, prefix + shown(name), f"is none of {', '.join(EXTENSIONS)}")
            elif name.startswith("/") or ".." in name.split("/"):
                faults.record(CORRUPT, shown(name), "points outside of the folder")
            else:
                found.append((posixpath.normpath(prefix + shown(name)), number, json.dumps(plain(row))))
        database.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", found)


def _join(database: sqlite3.Connection, owners: Mapping[str, str], faults: Faults) -> int:
    """Fill `samples` in the order of keys; their number. Rows of one picture are one sample with all their captions."""
    reading = database.cursor()
    count = 0

    def add(key: str, size: int, file: bytes, stamp: str, *texts: bytes | str | None) -> None:
        nonlocal count
        database.execute(
            "INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (count, key, size, file, stamp, *texts)
        )
        count += 1

    if owners:
        found = reading.execute(
            "SELECT r.key, r.record, p.size, p.file, p.stamp FROM rows r LEFT JOIN pictures p ON p.key = r.key ORDER BY r.key, r.number"
        )
        for key, several in groupby(found, key=lambda row: row[0]):
            rows = list(several)
            if rows[0][2] is None:
                faults.record(VANISHED, key, "no such file")
                continue
            records = [json.loads(record) for _, record, *_ in rows]
            database.execute("UPDATE pictures SET listed = 1 WHERE key = ?", (key,))
            if len(records) > 1:
                faults.record(
                    DUPLICATE, key, f"is in {len(records)} rows: their captions are one sample's", 0
                )
            try:
                record = json.dumps(_together(records))
            except ValueError as error:
                faults.record(TEXT, key, str(error))
                continue
            add(key, *rows[0][2:], None, None, record)
    loose = (
        "SELECT p.key, p.size, p.file, p.stamp, a.file, b.file, c.file FROM pictures p "
        "LEFT JOIN texts a ON a.stem = p.stem AND a.rank = 0 LEFT JOIN texts b ON b.stem = p.stem AND b.rank = 1 "
        "LEFT JOIN texts c ON c.stem = p.stem AND c.rank = 2 ORDER BY p.key"
    )
    for key, size, file, stamp, beside, text, second in reading.execute(loose):
        if any(not owner or key.startswith(f"{owner}/") for owner in owners):
            continue
        if text is not None and second is not None:
            faults.record(
                UNUSED, shown(os.fsdecode(second)), f"is not read, as {shown(os.fsdecode(text))} is"
            )
        text = second if text is None else text
        # One without a caption is a fault where it is read for its caption: it may still be embedded.
        add(key, size, file, stamp, beside, text, None)
    if owners:
        unlisted = "SELECT key FROM pictures WHERE listed = 0 ORDER BY key"
        for (key,) in reading.execute(unlisted):
            owner = next((one for one in owners if not one or key.startswith(f"{one}/")), None)
            if owner is not None:
                faults.record(UNUSED, key, f"is in no row of {owners[owner]}")
    return count


def _together(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if len(records) == 1:
        return records[0]
    captions = dict.fromkeys(caption for record in records for caption in captions_in(record))
    return {**records[0], "captions": list(captions)}


def _pages(items: Iterator[Any]) -> Iterator[list[Any]]:
    page = []
    for item in items:
        page.append(item)
        if len(page) == _PAGE:
            yield page
            page = []
    yield page
