"""Interface of data sets of any size: samples by number, read in batches, and the units that batch work is done by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from unclip.data.sample import BadSample, Sample, captions_in, read_json, weight_in
from unclip.data.stream.faults import TEXT, Faults
from unclip.text_files import decode, split_lines


class Unit(NamedTuple):
    """Consecutive samples that are stored together, such as a shard. name: without its ending, unique in the data set."""

    name: str
    start: int
    size: int


class Fault(BadSample):
    """A sample that cannot be used, and the kind of fault (`unclip.data.stream.faults`)."""

    def __init__(self, key: str, kind: str, reason: str):
        super().__init__(key, reason)
        self.kind = kind

    def __reduce__(self) -> tuple[type[BadSample], tuple[str, ...]]:
        return Fault, (self.key, self.kind, self.reason)


@dataclass(frozen=True)
class Record:
    """A sample as it is stored. key: unique in its data set; picture: a file's bytes; text and json: what is beside it."""

    key: str
    picture: bytes
    json: bytes | None = None
    text: bytes | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a table's row, in place of `json`."""

    def sample(self) -> Sample:
        """Captions, weight and metadata. Raises `Fault` for text that cannot be read, or none."""
        try:
            meta = dict(self.meta)
            if self.json is not None:
                meta = read_json(decode(self.json, "its .json"))
                if not isinstance(meta, dict):
                    raise ValueError("its JSON is not an object")
            captions = captions_in(meta) if meta else ()
            if not captions and self.text is not None:
                captions = captions_in({"captions": split_lines(decode(self.text, "its .txt"))})
            if not captions:
                raise ValueError("has no caption")
            return Sample(self.key, captions, weight_in(meta), meta)
        except ValueError as error:
            raise Fault(self.key, TEXT, str(error)) from error


@runtime_checkable
class StreamDataset(Protocol):
    """Captioned pictures by number, none of whose memory grows with their number. It can be sent to other processes."""

    faults: Faults
    """What opening it found."""

    @property
    def fingerprint(self) -> str:
        """A hex digest that changes when names or sizes of the files do."""
        ...

    def __len__(self) -> int: ...

    @property
    def units(self) -> Sequence[Unit]:
        """The units, in the order of their samples."""
        ...

    def keys(self, unit: int) -> list[str]:
        """The keys of a unit's samples, in order. Raises `OSError` where the unit is gone."""
        ...

    def state(self, unit: int) -> str:
        """Text that changes when a unit's files are written again: of their sizes, and their times or entity tags."""
        ...

    def read(self, indices: Sequence[int] | Int[np.ndarray, " b"]) -> list[Record | Fault]:
        """Some samples, in the order asked for, in any order and number. Raises `StoreFailure`."""
        ...


class Units(Sequence[Unit]):
    """Units by names and counts; the arrays are all that is kept."""

    def __init__(self, names: Sequence[str], counts: Sequence[int] | np.ndarray):
        self.names = names
        self.starts = np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        start, stop = (int(one) for one in self.starts[range(len(self))[number] :][:2])
        return Unit(str(self.names[number]), start, stop - start)

    @property
    def total(self) -> int:
        """Samples of all units."""
        return int(self.starts[-1])

    def of(self, indices: Int[np.ndarray, " b"]) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"]]:
        """The unit of each sample, and its place in it. Raises IndexError for a sample that there is not."""
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.total:
            raise IndexError(
                f"sample numbers lie in [0, {self.total}), not {indices.min()} to {indices.max()}"
            )
        units = np.searchsorted(self.starts, indices, side="right") - 1
        return units, indices - self.starts[units]
