"""Interface of data sets: captioned samples, pictures read on demand, and a limit on bad samples."""

import hashlib
import json
import math
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One picture's text. key: unique in its data set; captions: at least one; weight: share of epochs, in (0, 1]."""

    key: str
    captions: tuple[str, ...]
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Dataset(Protocol):
    """Random access to captioned pictures. Folders, tar shards and procedural sets all look like this."""

    @property
    def fingerprint(self) -> str:
        """A hex digest that changes when the content does: caches are named by it."""
        ...

    def __len__(self) -> int: ...

    def keys(self) -> Sequence[str]:
        """The keys of all samples, in order."""
        ...

    def info(self, index: int) -> Sample:
        """Captions and the rest of a sample without touching its picture."""
        ...

    def picture(self, index: int, size: int | None) -> np.ndarray:
        """The picture as RGB uint8 (3, h, w): square `size` x `size`, or as it is for None. Raises BadSample."""
        ...


class BadSample(ValueError):
    """One sample cannot be used. `key` names it, `reason` says why."""

    def __init__(self, key: str, reason: str):
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason

    def __reduce__(self) -> tuple[type["BadSample"], tuple[str, ...]]:
        return BadSample, (self.key, self.reason)


class TooManyBadSamples(ValueError):
    """More samples are bad than the policy allows: something is wrong with the data, not with a sample."""


class BadSamples:
    """Counts and names bad samples; stops the run when their share passes `limit`.

    limit: the share of all samples that may be bad, in [0, 1]; at least one is allowed unless it is 0. option: the setting
    that errors name as the way to allow more.
    """

    def __init__(self, limit: float = 0.01, *, option: str | None = None):
        if not 0 <= limit <= 1:
            raise ValueError(f"the share of bad samples allowed must lie in [0, 1], not {limit}")
        self.limit, self.option = limit, option
        self.reasons: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        """Files that are passed over and do not count as bad samples."""

    def __len__(self) -> int:
        return len(self.reasons)

    def record(self, key: str, reason: str) -> None:
        """Note one bad sample."""
        self.reasons[key] = reason

    def note(self, key: str, reason: str) -> None:
        """Note a file that is not used though no sample is lost by it, such as a second picture of one."""
        self.notes[key] = reason

    def check(self, total: int) -> None:
        """Raise TooManyBadSamples if more than the allowed share of `total` samples is bad."""
        if len(self) > math.ceil(self.limit * total):
            raise TooManyBadSamples(
                f"{len(self)} of {total} samples are bad, more than the {self.limit:.2%} allowed; {self.summary()}"
                + (
                    f": repair them, or allow more with `{self.option}={math.ceil(100 * len(self) / total) / 100:g}`"
                    if self.option
                    else ""
                )
            )

    def summary(self, most: int = 5) -> str:
        """'3 bad samples: a (reason); b (reason); ...', naming at most `most`."""
        return _counted(self.reasons, "bad sample", most)

    def report(self, most: int = 5) -> str:
        """The summary, and the files that were not used; "" where there is neither."""
        parts = [self.summary(most)] if len(self) else []
        return ". ".join([*parts, _counted(self.notes, "unused file", most)] if self.notes else parts)


def _counted(reasons: Mapping[str, str], what: str, most: int) -> str:
    named = "; ".join(f"{key} ({reason})" for key, reason in list(reasons.items())[:most])
    more = f"; and {len(reasons) - most} more" if len(reasons) > most else ""
    return f"{len(reasons)} {what}{'s' * (len(reasons) != 1)}" + (f": {named}{more}" if named else "")


def shown(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 become escapes such as `\\xff`, which can be printed and stored."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace").decode()


def captions_in(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of a metadata record: the list `captions`, or else `caption`, `text`, `prompt` or `captions`, a text or a list.

    Raises ValueError for a list that holds anything else.
    """
    found: list[str] = []
    names = ("caption", "text", "prompt", "captions")
    for name in sorted(
        names, key=lambda name: not isinstance(record.get(name), list | tuple) or name != "captions"
    ):
        value = record.get(name)
        if isinstance(value, list | tuple):
            if odd := [one for one in value if not isinstance(one, str | None)]:
                raise ValueError(f"{name} holds {reprlib.repr(odd[0])}, which is no text")
            found = [one for one in value if one]
        elif isinstance(value, str):
            found = [value]
        if any(text.strip() for text in found):
            break
    captions = tuple(text.strip() for text in found if text.strip())
    try:
        "".join(captions).encode()
    except UnicodeEncodeError:
        raise ValueError(
            "its caption holds half a character (a surrogate on its own): save it as UTF-8"
        ) from None
    return captions


def read_json(text: str) -> Any:
    """JSON of a user's file. Raises ValueError, also where it is nested too deep to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None


def weight_in(record: Mapping[str, Any]) -> float:
    """The weight of a metadata record, 1 where there is none. Raises ValueError outside of (0, 1]."""
    weight = record.get("weight")
    if weight is None or weight == "":
        return 1.0
    try:
        value = math.nan if isinstance(weight, bool) else float(weight)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 < value <= 1:
        raise ValueError(f"weight {reprlib.repr(weight)} is not in (0, 1]")
    return value


def digest_of(parts: Sequence[object]) -> str:
    """A hex digest of the printed parts, for fingerprints."""
    state = hashlib.sha256()
    for part in parts:
        state.update(f"{part}\x1f".encode("utf-8", "surrogatepass"))
    return state.hexdigest()
