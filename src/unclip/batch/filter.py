"""A selection by a score of each embedding, such as an aesthetic or a safety head gives (`unclip data filter`)."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from unclip.batch.embedded import Embedded, Rows
from unclip.batch.heads import Head
from unclip.batch.work import Encoder, Outcome, Part, UnitsFailed, Work, run_here
from unclip.data.stream.selection import Decision, SelectionWriter, finished


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


def filter_by(
    embedded: Embedded,
    head: Head,
    limits: Limits,
    out: str | os.PathLike[str],
    run: Callable[[Work], Outcome] = run_here,
) -> dict[str, Any]:
    """Write the selection of what a head's scores allow to `out`; its summary. One by the same rule that is there is kept.

    run: where the shards are scored. Raises ValueError for scores that are not finite, of another number than the rows, or that need
    limits.
    """
    described = {
        "kind": "filter",
        **embedded.origin,
        "head": head.digest,
        "at_least": limits.at_least,
        "at_most": limits.at_most,
    }
    if (found := finished(out, described)) is not None:
        return found
    work = FilterWork(embedded, head, limits, SelectionWriter(out, described))
    # What is wrong with the rule is wrong in the first shard.
    for part in work.load(0) if len(work.units) else ():
        if (error := work.encoder()(part).error) is not None:
            raise ValueError(error)
    embedded.faults.take()
    outcome = run(work)
    if outcome.failed:
        raise UnitsFailed(
            "; ".join(f"{name}: {reason}" for name, reason in islice(outcome.failed.items(), 3))
        )
    embedded.check()
    return work.writer.finish(work.units)


class FilterWork:
    """The work of `unclip data filter`. A unit is a shard; all are done again until the whole selection is there."""

    def __init__(self, embedded: Embedded, head: Head, limits: Limits, writer: SelectionWriter):
        self.embedded, self.head, self.limits, self.writer = embedded, head, limits, writer

    @property
    def units(self) -> Sequence[str]:
        """Names of the shards."""
        return [unit.name for unit in self.embedded.dataset.units]

    def parts(self, unit: int) -> int:
        """1."""
        return 1

    def is_done(self, unit: int) -> bool:
        """False: how many embeddings are missing is not known of a shard that was scored before."""
        return False

    def load(self, unit: int) -> Iterator[Part]:
        """The shard's embeddings."""
        yield Part(unit, 0, self.embedded.unit(unit))

    def encoder(self) -> Encoder:
        """The head with its limits."""
        return _Scoring(self.head, self.limits)

    def finish(self, unit: int, parts: Sequence[Any]) -> None:
        """Write the shard's file."""
        rows, decision = parts[0]
        self.embedded.count(rows)
        self.writer.add(decision)


class _Scoring:
    def __init__(self, head: Head, limits: Limits):
        self._head, self._limits = head, limits

    def __call__(self, part: Part) -> Part:
        """What is kept of a shard, and its rows' account without the rows."""
        unit: Rows = part.data
        places = np.flatnonzero(unit.usable)
        scores, kept = (
            np.zeros(len(unit.hashes), dtype=np.float32),
            np.zeros(len(unit.hashes), dtype=np.bool_),
        )
        try:
            if len(places):
                scores[places], kept[places] = _scored(unit, places, self._head, self._limits)
        except ValueError as error:
            return Part(part.unit, -1, error=str(error))
        # Half precision, in which scores are stored, ends there; it decides nothing.
        decision = Decision(unit.unit, unit.hashes, np.clip(scores, -65504, 65504), kept)
        return Part(part.unit, part.number, (unit._replace(rows=unit.rows[:0]), decision))


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
