"""A selection by a score of each embedding, such as an aesthetic or a safety head gives (`unclip data filter`)."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from unclip.batch.embedded import Embedded, Rows
from unclip.batch.heads import Head
from unclip.data.stream.selection import Decision, finished, write_selection


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The scores that are kept: from `at_least` to `at_most`, where given."""

    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for limits that nothing meets."""
        for name, value in (("at least", self.at_least), ("at most", self.at_most)):
            if value is not None and math.isnan(value):
                raise ValueError(f"the scores that are kept are {name} {value}, which is no number: give one")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"no score is at least {self.at_least} and at most {self.at_most}")

    @property
    def given(self) -> bool:
        """Whether there is a limit."""
        return self.at_least is not None or self.at_most is not None


def filter_by(embedded: Embedded, head: Head, limits: Limits, out: str | os.PathLike[str]) -> dict[str, Any]:
    """Write the selection of what a head's scores allow to `out`; its summary. One by the same rule that is there is kept.

    Raises ValueError for scores that are not finite, of another number than the rows, or that need limits.
    """
    described = {
        "kind": "filter",
        **embedded.origin,
        "head": head.digest,
        "at_least": limits.at_least,
        "at_most": limits.at_most,
    }
    found = finished(out, described)
    return found if found is not None else write_selection(out, described, _decisions(embedded, head, limits))


def _decisions(embedded: Embedded, head: Head, limits: Limits) -> Iterator[Decision]:
    for unit in embedded:
        places = np.flatnonzero(unit.usable)
        scores, kept = (
            np.zeros(len(unit.hashes), dtype=np.float32),
            np.zeros(len(unit.hashes), dtype=np.bool_),
        )
        if len(places):
            scores[places], kept[places] = _scored(unit, places, head, limits)
        # Half precision, in which scores are stored, ends there; it decides nothing.
        yield Decision(unit.unit, unit.hashes, np.clip(scores, -65504, 65504), kept)


def _scored(unit: Rows, places: np.ndarray, head: Head, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    found = np.asarray(head.score(np.asarray(unit.rows[places], dtype=np.float32)))
    if found.shape != places.shape:
        raise ValueError(
            f"the head gave {found.shape} scores for the {len(places)} rows of {unit.unit}: it must give one each"
        )
    if found.dtype == np.bool_:
        if limits.given:
            raise ValueError("the head says yes or no to each row: leave --at-least and --at-most out")
        return found.astype(np.float32), found
    if not limits.given:
        raise ValueError("the head gives scores: say which are kept with --at-least X or --at-most X")
    scores = found.astype(np.float32)
    if not np.isfinite(scores).all():
        raise ValueError(f"the head gave a score that is no finite number, in {unit.unit}")
    kept = np.ones(len(scores), dtype=np.bool_)
    if limits.at_least is not None:
        kept &= scores >= limits.at_least
    if limits.at_most is not None:
        kept &= scores <= limits.at_most
    return scores, kept
