"""Embeddings of a data set, unit by unit, as selections by embeddings read them: from sidecar files, none kept in memory."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float16, UInt64

from unclip.data.stream.dataset import StreamDataset
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.faults import MISSING_ROW, Faults
from unclip.data.stream.selection import Selection
from unclip.data.stream.sidecar import IMAGE, Sidecars, only_model


class Rows(NamedTuple):
    """A unit's embeddings. usable: those that are good, and that the selection before keeps; missing: how many are not good."""

    unit: str
    start: int
    hashes: UInt64[np.ndarray, " n"]
    rows: Float16[np.ndarray, "n d"]
    usable: Bool[np.ndarray, " n"]
    missing: int


class Embedded:
    """A data set and its sidecar files at `place`. model: the first digits of the CLIP's digest, where there are several.

    Samples without an embedding are counted in `faults` and bounded by its limit.
    """

    def __init__(
        self,
        dataset: StreamDataset,
        place: str | os.PathLike[str],
        cache: DiskCache,
        *,
        model: str | None = None,
        selection: Selection | None = None,
        faults: Faults | None = None,
    ):
        self.dataset, self.selection = dataset, selection
        self.faults = faults if faults is not None else Faults()
        self.model = only_model(place, IMAGE, model)
        self.sidecars = Sidecars(place, IMAGE, self.model, cache)

    @property
    def origin(self) -> dict[str, Any]:
        """What the rule of a selection records of its data."""
        before = None if self.selection is None else self.selection.digest
        return {"data": self.dataset.fingerprint, "embeddings": self.model, "selection": before}

    def __iter__(self) -> Iterator[Rows]:
        """The units in order. Raises ValueError for a unit without embeddings, or with those of other data."""
        self.faults.take()
        for number in range(len(self.dataset.units)):
            found = self.unit(number)
            self.count(found)
            yield found
        self.check()

    def unit(self, number: int) -> Rows:
        """One unit; nothing is counted. Raises like iteration."""
        unit = self.dataset.units[number]
        found = self.sidecars.unit(unit.name)
        if found is None:
            raise ValueError(
                f"{self.sidecars.store.url} has no embeddings of {unit.name}: make them with `unclip embed`"
            )
        hashes, rows, ok = found
        if len(hashes) != unit.size:
            raise ValueError(
                f"the embeddings of {unit.name} are of {len(hashes)} samples, and it has {unit.size}: make them again"
            )
        usable = np.array(ok)
        if self.selection is not None:
            usable &= np.isin(hashes, self.selection.hashes(unit.name))
        return Rows(unit.name, unit.start, hashes, rows, usable, int((~ok).sum()))

    def count(self, unit: Rows) -> None:
        """Count a unit's samples without embedding."""
        if unit.missing:
            self.faults.record(MISSING_ROW, unit.unit, f"{unit.missing} samples", unit.missing)

    def check(self) -> None:
        """Raise `TooManyBadSamples` where more are missing than the limit allows."""
        self.faults.check(len(self.dataset), len(self.dataset))
