"""Batch work in units: what it consists of, and running it in one process. `unclip.batch.on_ray` runs it on a cluster.

A unit's output is written whole or not at all, and a unit is done when its output is there and verifies. So a command that
was stopped, or whose machines come and go, goes on where it was.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

logger = logging.getLogger(__name__)

Report = Callable[[int, int], object]
"""Called with the number of finished units, and of all units."""


class UnitsFailed(ValueError):
    """Some units could not be done; the message names the first and says why."""


@dataclass(frozen=True)
class Part:
    """A piece of a unit on its way from one stage to the next. data: what the stage made; error: why it could not."""

    unit: int
    number: int
    data: Any = None
    error: str | None = None


@runtime_checkable
class Encoder(Protocol):
    """The stage that uses the accelerator, with its model in memory."""

    def __call__(self, part: Part) -> Part:
        """What a part becomes: a pure function of its data."""
        ...


@runtime_checkable
class Work(Protocol):
    """A kind of batch work. Objects of this kind can be sent to other machines; stores that all of them see are theirs."""

    @property
    def units(self) -> Sequence[str]:
        """Names of the units."""
        ...

    def parts(self, unit: int) -> int:
        """The number of parts of a unit, at least 1."""
        ...

    def is_done(self, unit: int) -> bool:
        """Whether the unit's output is there and verifies."""
        ...

    def load(self, unit: int) -> Iterator[Part]:
        """The parts of a unit, read and decoded on the CPU. Raises OSError and ValueError."""
        ...

    def encoder(self) -> Encoder:
        """The encoder, with its model loaded."""
        ...

    def finish(self, unit: int, parts: Sequence[Any]) -> None:
        """Write a unit's output, whole, from what the encoder made of all its parts."""
        ...


@dataclass
class Outcome:
    """Units that were done before, done now, and that failed, with the reason."""

    before: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def pending(work: Work, outcome: Outcome) -> list[int]:
    """Units that are not done; the others are counted. Storage is asked by several threads."""
    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(work.is_done, range(len(work.units))))
    outcome.before = sum(done)
    return [unit for unit, one in enumerate(done) if not one]


def load_safely(work: Work, unit: int) -> Iterator[Part]:
    """The parts of a unit; one with the error, where there is one."""
    try:
        yield from work.load(unit)
    except (OSError, ValueError) as error:
        yield Part(unit, -1, error=str(error))


class Collector:
    """Puts encoded parts together and finishes each unit that is complete."""

    def __init__(self, work: Work, outcome: Outcome, total: int, report: Report):
        self._work, self._outcome, self._total, self._report = work, outcome, total, report
        self._open: OrderedDict[int, dict[int, Any]] = OrderedDict()

    def add(self, part: Part) -> None:
        """Take one encoded part."""
        name = self._work.units[part.unit]
        if name in self._outcome.failed:
            return
        if part.error is not None:
            self._fail(part.unit, part.error)
            return
        parts = self._open.setdefault(part.unit, {})
        parts[part.number] = part.data
        if len(parts) < self._work.parts(part.unit):
            return
        del self._open[part.unit]
        try:
            self._work.finish(part.unit, [parts[number] for number in sorted(parts)])
        except (OSError, ValueError) as error:
            self._fail(part.unit, str(error))
            return
        self._outcome.done += 1
        self._told()

    def _fail(self, unit: int, reason: str) -> None:
        name = self._work.units[unit]
        self._open.pop(unit, None)
        self._outcome.failed[name] = reason
        logger.warning("%s failed: %s", name, reason)
        self._told()

    def _told(self) -> None:
        self._report(self._outcome.done + len(self._outcome.failed), self._total)


def run_here(work: Work, report: Report = lambda done, of: None) -> Outcome:
    """Do all units that are not done, in this process; the next part is read while one is encoded."""
    outcome = Outcome()
    units = pending(work, outcome)
    if not units:
        return outcome
    collector = Collector(work, outcome, len(units), report)
    encode = work.encoder()
    for part in _ahead(part for unit in units for part in load_safely(work, unit)):
        collector.add(part if part.error is not None else encode(part))
    return outcome


def _ahead(parts: Iterable[Part]) -> Iterator[Part]:
    """The same parts, of which the next one is made on another thread meanwhile."""
    iterator = iter(parts)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, iterator, None)
        while (part := following.result()) is not None:
            following = pool.submit(next, iterator, None)
            yield part
