"""Selections: which samples of a data set are used, as `unclip data dedup` and `unclip data filter` decide. Pictures stay as they are.

A folder or URL with a sidecar file of each unit (`UNIT.kept-RULE.safetensors`: a score of each sample, and whether it is kept)
and `selection.json`, written last: the rule, and how many samples of each unit are kept.
"""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from unclip.data.sample import digest_of
from unclip.data.stream.dataset import Fault, Record, StreamDataset, Units
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.sidecar import Origin, Sidecars, hash_of, pack
from unclip.data.stream.store import Store, Vanished, open_store

KIND = "kept"
SUMMARY = "selection.json"
_MOST_OPEN = 64


class SelectionError(ValueError):
    """A selection that is not there, or of other data; the message says what to do."""


class Decision(NamedTuple):
    """What a rule says of a unit's samples, by the hashes of their keys. scores: of any meaning, kept for inspection."""

    unit: str
    hashes: UInt64[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"]
    kept: Bool[np.ndarray, " n"]


def digest_of_rule(rule: Mapping[str, Any]) -> str:
    """The digest of a rule by which its files are known."""
    return hashlib.sha256(json.dumps(rule, sort_keys=True).encode()).hexdigest()


def _summary(store: Store) -> dict[str, Any] | None:
    try:
        found = json.loads(store.get(SUMMARY))
        if found["format"] != 1:
            raise ValueError(f"its format is {found['format']}, this version reads 1")
        return found
    except Vanished:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise SelectionError(
            f"{store.url}/{SUMMARY} is damaged ({error}): remove it and make the selection again"
        ) from error


def finished(place: str | os.PathLike[str], rule: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary of a selection by this rule at a place; None where there is none. Raises `SelectionError` for another rule's."""
    store = open_store(place)
    found = _summary(store)
    if found is not None and found["digest"] != digest_of_rule(rule):
        raise SelectionError(
            f"{store.url} holds a selection by another rule, or of other data: give another place, or remove {SUMMARY}"
        )
    return found


class SelectionWriter:
    """A selection that is written unit by unit, in any order."""

    def __init__(self, place: str | os.PathLike[str], rule: Mapping[str, Any]):
        self._store, self._rule, self._digest = open_store(place), dict(rule), digest_of_rule(rule)
        self._origin = Origin(kind=KIND, model=self._digest, preprocessing=str(rule["kind"]))
        self._kept: dict[str, int] = {}
        self._samples = 0

    def add(self, one: Decision) -> None:
        """Write the file of a unit."""
        scores = np.ascontiguousarray(one.scores.astype(np.float16)[:, None])
        data = pack(self._origin, one.unit, one.hashes, scores, one.kept)
        self._store.put(self._origin.name(one.unit), data)
        self._kept[one.unit] = int(one.kept.sum())
        self._samples += len(one.kept)

    def finish(self, units: Iterable[str]) -> dict[str, Any]:
        """The summary, written last; it lists the units in the order given."""
        kept = {unit: self._kept[unit] for unit in units}
        found = {
            "format": 1,
            "rule": self._rule,
            "digest": self._digest,
            "samples": self._samples,
            "kept": kept,
        }
        self._store.put(SUMMARY, json.dumps(found, separators=(",", ":")).encode())
        return found


def write_selection(
    place: str | os.PathLike[str], rule: Mapping[str, Any], decisions: Iterable[Decision]
) -> dict[str, Any]:
    """Write a selection, unit by unit; its summary, written last."""
    writer, units = SelectionWriter(place, rule), []
    for one in decisions:
        writer.add(one)
        units.append(one.unit)
    return writer.finish(units)


class Selection:
    """A selection that was written. Raises `SelectionError` where there is none."""

    def __init__(self, place: str | os.PathLike[str], cache: DiskCache):
        store = open_store(place)
        found = _summary(store)
        if found is None:
            raise SelectionError(
                f"{store.url} holds no {SUMMARY}: make a selection with `unclip data dedup` or `unclip data filter`"
            )
        self.url, self.digest = store.url, str(found["digest"])
        self.counts: dict[str, int] = found["kept"]
        self._sidecars = Sidecars(place, KIND, self.digest, cache)

    def hashes(self, unit: str) -> UInt64[np.ndarray, " k"]:
        """Hashes of the keys of a unit's samples that are kept. Raises `SelectionError` for a unit of other data."""
        if unit not in self.counts:
            raise SelectionError(
                f"{self.url} was made for other data: it has no {unit}; make it again for these data"
            )
        found = self._sidecars.unit(unit)
        if found is None:
            raise SelectionError(f"{self.url} lacks the file of {unit}: make the selection again")
        return found[0][found[2]]


class Selected:
    """The samples of a data set that a selection keeps; see `unclip.data.stream.dataset.StreamDataset`.

    Only the number of samples of each unit is held in memory.
    """

    def __init__(self, inner: StreamDataset, selection: Selection):
        self.inner, self.selection, self.faults = inner, selection, inner.faults
        names = [unit.name for unit in inner.units]
        if unknown := next((name for name in names if name not in selection.counts), None):
            raise SelectionError(
                f"{selection.url} was made for other data: it has no {unknown}; make it again for these data"
            )
        self.units = Units(names, [selection.counts[name] for name in names])
        if not self.units.total:
            raise SelectionError(f"{selection.url} keeps none of the {len(inner)} samples of these data")
        self._places: OrderedDict[int, np.ndarray] = OrderedDict()

    @property
    def store(self) -> Any:
        """Where the samples are."""
        return getattr(self.inner, "store", None)

    @property
    def fingerprint(self) -> str:
        """Digest of the data's and the selection's."""
        return digest_of(["selected", self.inner.fingerprint, self.selection.digest])

    def __len__(self) -> int:
        return self.units.total

    def keys(self, unit: int) -> list[str]:
        """The keys of a unit's samples that are kept."""
        keys = self.inner.keys(unit)
        return [keys[place] for place in self._of(unit)]

    def state(self, unit: int) -> str:
        """The state of a unit's files, and the selection."""
        return f"{self.inner.state(unit)} {self.selection.digest}"

    def read(self, indices: Sequence[int] | Int[np.ndarray, " b"]) -> list[Record | Fault]:
        """Some of the samples that are kept, by their number among these."""
        numbers = np.asarray(indices, dtype=np.int64)
        units, ranks = self.units.of(numbers)
        found = np.empty_like(numbers)
        for unit in np.unique(units):
            here = units == unit
            found[here] = self.inner.units[int(unit)].start + self._of(int(unit))[ranks[here]]
        return self.inner.read(found)

    def _of(self, unit: int) -> Int[np.ndarray, " k"]:
        """Places of the kept samples in their unit, joined by key."""
        if unit not in self._places:
            name = str(self.units.names[unit])
            kept = self.selection.hashes(name)
            hashes = np.array([hash_of(key) for key in self.inner.keys(unit)], dtype=np.uint64)
            places = np.flatnonzero(np.isin(hashes, kept))
            if len(places) != self.units[unit].size:
                raise SelectionError(
                    f"{name} has {len(places)} of the {self.units[unit].size} samples that {self.selection.url} keeps: the data "
                    "have changed; make the selection again"
                )
            while len(self._places) >= _MOST_OPEN:
                self._places.popitem(last=False)
            self._places[unit] = places
        self._places.move_to_end(unit)
        return self._places[unit]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_places": OrderedDict()}
