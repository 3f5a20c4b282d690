"""What goes wrong while large data sets are read: counted by kind, the first few named, bounded by a setting."""

import math
import threading
from collections.abc import Mapping
from typing import Any

from unclip.data.sample import TooManyBadSamples

#: Kinds of faults that lose a sample.
VANISHED, TRUNCATED, CORRUPT, DUPLICATE, TEXT = (
    "vanished",
    "truncated",
    "corrupt picture",
    "duplicate key",
    "text",
)
MISSING_ROW = "no row in the sidecar"
#: Kinds that lose nothing.
RETRIED, UNUSED = "retried request", "unused file"
_HARMLESS = (RETRIED, UNUSED)
#: Never more than this share of so many samples: early samples are few.
_FEWEST = 10_000


class Faults:
    """Counts of faults by kind and the first few names of each; memory does not grow with their number.

    limit: the share of samples that may be lost, in [0, 1]; option: the setting that errors name as the way to allow more.
    Threads may share it.
    """

    def __init__(self, limit: float = 0.01, *, option: str | None = None, named: int = 20):
        if not 0 <= limit <= 1:
            raise ValueError(f"the share of bad samples allowed must lie in [0, 1], not {limit}")
        self.limit, self.option, self.named = limit, option, named
        self.counts: dict[str, int] = {}
        self.names: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def record(self, kind: str, name: str, reason: str, count: int = 1) -> None:
        """Count `count` faults of a kind at `name`. The reason is made one line, which those of other libraries may not be."""
        reason = " ".join(reason.split())
        with self._lock:
            self.counts[kind] = self.counts.get(kind, 0) + count
            names = self.names.setdefault(kind, {})
            if len(names) < self.named:
                names.setdefault(name, reason)

    def merge(self, counts: Mapping[str, int], names: Mapping[str, Mapping[str, str]]) -> None:
        """Add the counts and names of another process, or of another time."""
        for kind, count in counts.items():
            found = list(names.get(kind, {}).items()) or [("", "")]
            for name, reason in found[1:]:
                self.record(kind, name, reason, 0)
            self.record(kind, *found[0], count)

    def take(self) -> tuple[dict[str, int], dict[str, dict[str, str]]]:
        """Counts and names, which are forgotten here: to be merged elsewhere."""
        with self._lock:
            found = self.counts, self.names
            self.counts, self.names = {}, {}
            return found

    @property
    def lost(self) -> int:
        """Samples that could not be used."""
        return sum(count for kind, count in self.counts.items() if kind not in _HARMLESS)

    def check(self, seen: int, total: int) -> None:
        """Raise `TooManyBadSamples` where more than the allowed share of the `seen` samples, of `total`, is lost.

        What is seen again in a later epoch counts again, on both sides.
        """
        base = max(seen, min(total, _FEWEST))
        if self.lost > math.ceil(self.limit * base):
            if not base:
                raise TooManyBadSamples(
                    f"no sample can be read; {self.summary()}: repair the data, or write them again"
                )
            raise TooManyBadSamples(
                f"{self.lost} of {base:,} samples are bad, more than the {self.limit:.2%} allowed; {self.summary()}"
                + (f": repair them, or allow more with `{self.option}=SHARE`" if self.option else "")
            )

    def summary(self, most: int = 5) -> str:
        """'3 corrupt pictures: a (reason); b (reason); ...' for each kind, naming at most `most`; "" without faults."""
        parts = []
        for kind, count in self.counts.items():
            named = "; ".join(
                f"{name} ({reason})" for name, reason in list(self.names[kind].items())[:most] if name
            )
            more = f"; and {count - most} more" if count > most else ""
            parts.append(f"{count} x {kind}" + (f": {named}{more}" if named else ""))
        return ". ".join(parts)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
