"""Tar shards of any number (webdataset's naming) as one data set: random access by their indexes, on a disk or a store.

`shards.json` beside the shards lists them with sizes and counts; `unclip data index` writes it and the indexes. Without them
they are made when the data set is first opened, and kept in the cache.
"""

import json
import logging
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from unclip.data.decode import MAX_BYTES
from unclip.data.sample import digest_of
from unclip.data.stream.dataset import Fault, Record, Units
from unclip.data.stream.disk_cache import CachedStore, DiskCache
from unclip.data.stream.faults import CORRUPT, TRUNCATED, UNUSED, VANISHED, Faults
from unclip.data.stream.store import Entry, LocalStore, Store, Vanished
from unclip.data.stream.tar_index import MEMBERS, TarIndex, build_index

logger = logging.getLogger(__name__)

SUMMARY = "shards.json"
_FORMAT = 1
#: Indexes kept in memory at once, and requests made at once.
_MOST_INDEXES, _THREADS = 256, 16
#: Members of a sample that lie this near are read at once.
_GAP = 1 << 16


class TarShards:
    """Samples of tar shards; see `unclip.data.stream.dataset.StreamDataset`.

    cache: where indexes are kept that are not beside their shards and, of object stores, pieces of shards.
    Keys are `tar-name/sample`, as sample names repeat between shards.
    """

    def __init__(self, store: Store, entries: Sequence[Entry], cache: DiskCache, faults: Faults):
        self.store, self.cache, self.faults = store, cache, faults
        tars = sorted(one for one in entries if one.name.lower().endswith(".tar"))
        self._beside = {one.name for one in entries if one.name.endswith((".index", SUMMARY))}
        self._versions = {one.name: f"{one.size} {one.stamp}" for one in tars}
        summary = self._summary(tars)
        self.names = [str(name) for name, _, _ in summary["shards"]]
        self._sizes = np.array([size for _, size, _ in summary["shards"]], dtype=np.int64)
        self.units = Units(
            [name.removesuffix(".tar").removesuffix(".TAR") for name in self.names],
            [count for _, _, count in summary["shards"]],
        )
        faults.merge(summary["faults"]["counts"], summary["faults"]["names"])
        self._here = {one.name: one.size for one in tars}
        for name, size, count in summary["shards"]:
            if name not in self._here:
                faults.record(VANISHED, name, "the shard is not there", count)
            elif self._here[name] > size:
                raise ValueError(
                    f"{store.url}/{name} is longer than {SUMMARY} says: write that again with `unclip data index`"
                )
            elif self._here[name] < size:
                faults.record(TRUNCATED, name, f"the shard has {self._here[name]} of {size} bytes", 0)
        self._data = store if isinstance(store, LocalStore) else CachedStore(store, cache, self._versions)
        self._forget()

    def _forget(self) -> None:
        self._indexes: OrderedDict[int, TarIndex] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        """Digest of names, sizes and counts of the shards."""
        return digest_of(["tar", *self.names, *self._sizes.tolist(), *self.units.starts.tolist()])

    def __len__(self) -> int:
        return self.units.total

    def keys(self, unit: int) -> list[str]:
        """The keys of a shard's samples."""
        index = self.index(unit)
        return [f"{self.units.names[unit]}/{index.key(place)}" for place in range(len(index))]

    def state(self, unit: int) -> str:
        """Size and time or entity tag of a shard; empty where it is not there."""
        return self._versions.get(self.names[unit], "")

    def index(self, unit: int) -> TarIndex:
        """The index of a shard, kept in memory for a while."""
        found = self._indexes.get(unit)
        if found is None:
            found = self._find_index(self.names[unit], int(self._sizes[unit]))
            if len(found) != self.units[unit].size:
                raise ValueError(
                    f"the index of {self.names[unit]} has {len(found)} samples, {SUMMARY} says {self.units[unit].size}: "
                    "write both again with `unclip data index`"
                )
            self._indexes[unit] = found
            while len(self._indexes) > _MOST_INDEXES:
                self._indexes.popitem(last=False)
        return found

    def _find_index(self, name: str, size: int) -> TarIndex:
        beside = f"{name[:-4]}.index"

        def make() -> bytes:
            if beside in self._beside:
                try:
                    data = self.store.get(beside)
                    found = TarIndex.from_bytes(data, beside)
                    if found.size == size and self._holds(name, found):
                        return data
                    logger.warning("%s belongs to another tar, which was read instead", beside)
                except (Vanished, ValueError) as error:
                    logger.warning("%s; the tar was read instead", error)
            return scanned(self.store, name).to_bytes()

        if beside in self._beside and isinstance(self.store, LocalStore):
            return TarIndex.from_bytes(make(), beside)
        # A tar that is written again is often as long as before.
        path = self.cache.path(f"{self.store.url}\n{name}\n{size}\n{self._versions.get(name)}\nindex", make)
        return TarIndex.from_bytes(path.read_bytes(), f"{name}, in the cache {path},")

    def _holds(self, name: str, index: TarIndex) -> bool:
        """Whether a tar has headers where an index says; of an object store, which knows no times, it is not read for that."""
        return not isinstance(self.store, LocalStore) or index.fits(
            lambda spans: self.store.read(name, spans)
        )

    def _summary(self, tars: Sequence[Entry]) -> dict[str, Any]:
        """What shards.json says, or would say, and the names of what it says nothing of."""
        if SUMMARY in self._beside:
            try:
                found = json.loads(self.store.get(SUMMARY))
                if found["format"] != _FORMAT:
                    raise ValueError(f"its format is {found['format']}")
                listed = {name for name, _, _ in found["shards"]}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.store.url}/{SUMMARY} cannot be read ({error}): write it again with `unclip data index`"
                ) from error
            for name in sorted(one.name for one in tars if one.name not in listed):
                self.faults.record(UNUSED, name, f"is not in {SUMMARY}")
            return found
        if not tars:
            raise ValueError(f"{self.store.url} holds no .tar file")
        state = digest_of([self.store.url, *tars])
        path = self.cache.path(f"{state}\nsummary", lambda: json.dumps(self._summarise(tars)).encode())
        return json.loads(path.read_bytes())

    def _summarise(self, tars: Sequence[Entry]) -> dict[str, Any]:
        faults, shards = Faults(), []
        logger.info("reading the indexes of %d shards in %s", len(tars), self.store.url)

        def indexed(one: Entry) -> TarIndex | str:
            try:
                return self._find_index(one.name, one.size)
            except ValueError as error:
                return str(error)

        with ThreadPoolExecutor(1 if isinstance(self.store, LocalStore) else _THREADS) as pool:
            for one, index in zip(tars, pool.map(indexed, tars)):
                if isinstance(index, str):
                    faults.record(CORRUPT, one.name, index)
                    continue
                faults.merge(index.counts, index.names)
                shards.append((one.name, one.size, len(index)))
        return {
            "format": _FORMAT,
            "shards": shards,
            "faults": {"counts": faults.counts, "names": faults.names},
        }

    def read(self, indices: Sequence[int] | Int[np.ndarray, " b"]) -> list[Record | Fault]:
        """Samples by number; those of a shard together, shards of an object store at once."""
        numbers = np.asarray(indices, dtype=np.int64)
        units, places = self.units.of(numbers)
        result: list[Record | Fault | None] = [None] * len(numbers)
        groups = [np.flatnonzero(units == unit) for unit in np.unique(units)]

        def fill(group: np.ndarray) -> None:
            for number, record in zip(group, self._of_shard(int(units[group[0]]), places[group])):
                result[number] = record

        if isinstance(self.store, LocalStore) or len(groups) == 1:
            for group in groups:
                fill(group)
        else:
            with ThreadPoolExecutor(min(_THREADS, len(groups))) as pool:
                list(pool.map(fill, groups))
        return [one for one in result if one is not None]

    def _of_shard(self, unit: int, places: np.ndarray) -> list[Record | Fault]:
        name, prefix = self.names[unit], self.units.names[unit]
        if name not in self._here:
            return [Fault(f"{prefix}/#{place}", VANISHED, f"{name} is not there") for place in places]
        try:
            index = self.index(unit)
        except Vanished as error:
            return [Fault(f"{prefix}/#{place}", VANISHED, str(error)) for place in places]
        wanted = [_spans_of(index, int(place)) for place in places]
        keys = [f"{prefix}/{index.key(int(place))}" for place in places]
        try:
            found = iter(self._data.read(name, [span for spans, _ in wanted for span in spans]))
        except Vanished as error:
            return [Fault(key, VANISHED, str(error)) for key in keys]
        return [
            _record(key, [next(found) for _ in spans], spans, parts, name)
            for key, (spans, parts) in zip(keys, wanted)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_indexes": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def scanned(store: Store, name: str) -> TarIndex:
    """The index of a tar in a store, by its headers; of an object store, all of it is read."""
    if isinstance(store, LocalStore):
        return build_index(Path(store.url) / name)
    with tempfile.TemporaryDirectory(prefix="unclip-shard-") as folder, store.open(name) as source:
        copy = Path(folder) / Path(name).name
        with copy.open("wb") as target:
            while data := source.read(8 << 20):
                target.write(data)
        return build_index(copy)


def _spans_of(index: TarIndex, place: int) -> tuple[list[tuple[int, int]], dict[str, tuple[int, int]]]:
    """Ranges to read for a sample, and its members' own: one range where they are near each other."""
    parts = {}
    for member in MEMBERS:
        offset, length = (int(one) for one in index.spans[member][place])
        if length:
            parts[member] = (offset, length)
    if not parts:
        return [], parts
    start, stop = min(one[0] for one in parts.values()), max(sum(one) for one in parts.values())
    if stop - start <= sum(one[1] for one in parts.values()) + _GAP:
        return [(start, stop - start)], parts
    return list(parts.values()), parts


def _record(
    key: str, data: list[bytes], spans: list[tuple[int, int]], parts: dict[str, tuple[int, int]], tar: str
) -> Record | Fault:
    found: dict[str, bytes] = {}
    for member, (offset, length) in parts.items():
        if length > MAX_BYTES:
            return Fault(key, CORRUPT, f"{length} bytes are more than the {MAX_BYTES} allowed")
        number = next(n for n, (start, size) in enumerate(spans) if start <= offset < start + size)
        found[member] = data[number][offset - spans[number][0] :][:length]
        if len(found[member]) != length:
            return Fault(key, TRUNCATED, f"cut off: {tar} is truncated")
    if "picture" not in found:
        return Fault(key, CORRUPT, "has no picture")
    return Record(key, found["picture"], found.get("json"), found.get("txt"))
