"""The index of a tar shard, `NAME.index` beside `NAME.tar`: where each sample's picture and text are.

A safetensors file with `keys` (their UTF-8 bytes, joined), `ends` (n), and for `picture`, `json` and `txt` offset and
length of each sample's member (n, 2), 0 where there is none. Its metadata name format, the tar's size and its samples, and
what the tar holds that cannot be used.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.numpy import load, save

from unclip.data.decode import EXTENSIONS
from unclip.data.sample import BadSamples
from unclip.data.shard_files import BLOCK, check_is_tar, read_index, scan, size_in
from unclip.data.stream.faults import CORRUPT, DUPLICATE, TRUNCATED, UNUSED, Faults

FORMAT = "1"
MEMBERS = ("picture", "json", "txt")
#: Samples of an index that are compared with their tar.
_ASKED = 32


@dataclass(frozen=True)
class TarIndex:
    """Places of a shard's samples. spans: member -> (n, 2) offsets and lengths; length 0 for none."""

    keys: np.ndarray
    ends: Int[np.ndarray, " n"]
    spans: Mapping[str, Int[np.ndarray, "n 2"]]
    size: int
    counts: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What the tar holds that cannot be used (`Faults`)."""

    def __len__(self) -> int:
        return len(self.ends)

    def key(self, place: int) -> str:
        """The key of a sample, unique in the shard."""
        start = int(self.ends[place - 1]) if place else 0
        return self.keys[start : int(self.ends[place])].tobytes().decode()

    def to_bytes(self) -> bytes:
        """The file."""
        metadata = {
            "format": FORMAT,
            "size": self.size,
            "samples": len(self),
            "faults": {"counts": dict(self.counts), "names": self.names},
        }
        # One entry, as several are stored in no fixed order.
        return save(
            {"keys": self.keys, "ends": self.ends, **self.spans},
            {"index": json.dumps(metadata, sort_keys=True)},
        )

    def fits(self, read: Callable[[list[tuple[int, int]]], list[bytes]]) -> bool:
        """Whether the headers before some members are theirs; what lies beyond the end of a truncated tar is not asked."""
        for place in np.unique(np.linspace(0, len(self) - 1, min(len(self), _ASKED)).round().astype(int)):
            places = [self.spans[member][place] for member in MEMBERS]
            spans = [(int(offset), int(length)) for offset, length in places if length]
            name = self.key(int(place)).rpartition("/")[2].encode()
            for (_, length), header in zip(spans, read([(offset - BLOCK, BLOCK) for offset, _ in spans])):
                if len(header) < BLOCK:
                    continue
                # Long names, and those in other encodings, stand elsewhere.
                plain = name.isascii() and len(name) < 80 and b"\\" not in name
                if size_in(header) != length or (plain and name not in header[:100]):
                    return False
        return True

    def _check(self) -> None:
        """Raise ValueError for places that no tar has: before its beginning, behind its end, or of other numbers of samples."""
        keys, ends, count = self.keys, self.ends, len(self.ends)
        if keys.dtype != np.uint8 or keys.ndim != 1 or ends.dtype != np.int64 or ends.ndim != 1:
            raise ValueError("its keys are no bytes with their ends")
        if (count and (np.diff(ends, prepend=0) < 0).any()) or (ends[-1] if count else 0) != len(keys):
            raise ValueError("its keys and their ends do not fit")
        keys.tobytes().decode()
        for member, spans in self.spans.items():
            if spans.dtype != np.int64 or spans.shape != (count, 2):
                raise ValueError(f"{member} has not two numbers for each sample")
            # Not added: the sum of two large numbers may be negative.
            if (
                (spans < 0).any()
                or (spans > self.size).any()
                or (spans[:, 0] > self.size - spans[:, 1]).any()
            ):
                raise ValueError(f"{member} lies outside of the tar")

    @staticmethod
    def from_bytes(data: bytes, name: str) -> "TarIndex":
        """The index in a file. Raises ValueError naming it where it is damaged or of another format."""
        try:
            # The header's length, then the header.
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            metadata, tensors = json.loads(header["__metadata__"]["index"]), load(data)
            if metadata["format"] != FORMAT:
                raise ValueError(f"its format is {metadata['format']}, this version reads {FORMAT}")
            faults = metadata["faults"]
            found = TarIndex(
                tensors["keys"],
                tensors["ends"],
                {member: tensors[member] for member in MEMBERS},
                int(metadata["size"]),
                faults["counts"],
                faults["names"],
            )
            found._check()
            return found
        except (
            SafetensorError,
            KeyError,
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise ValueError(
                f"{name} is no index of a shard ({error}): write it again with `unclip data index`"
            ) from error


def build_index(tar: Path) -> TarIndex:
    """The index of a tar, by its JSON index where that fits (`unclip.data.shards`), else by its headers.

    Samples without picture are left out and counted. Raises ValueError for a file that is no plain tar.
    """
    check_is_tar(tar)
    found, faults = BadSamples(1.0), Faults()
    samples = read_index(tar, found)
    if samples is None:
        samples = scan(tar, found)
    size, stem = tar.stat().st_size, tar.stem
    for name, reason in found.reasons.items():
        faults.record(_kind(reason), name, reason)
    for name, reason in found.notes.items():
        faults.record(UNUSED, name, reason)
    keys: list[bytes] = []
    spans: dict[str, list[tuple[int, int]]] = {member: [] for member in MEMBERS}
    for key, members in samples:
        picture = next((members[one] for one in EXTENSIONS if one in members), None)
        if picture is None:
            if members:
                faults.record(CORRUPT, f"{stem}/{key}", "has no picture")
            continue
        if any(offset + length > size for offset, length in members.values()):
            faults.record(TRUNCATED, f"{stem}/{key}", f"cut off: {tar.name} is truncated")
            continue
        keys.append(key.encode("utf-8", "backslashreplace"))
        spans["picture"].append(picture)
        for member in MEMBERS[1:]:
            spans[member].append(members.get(member, (0, 0)))
    return TarIndex(
        np.frombuffer(b"".join(keys), dtype=np.uint8),
        np.cumsum([len(key) for key in keys], dtype=np.int64),
        {member: np.array(found, dtype=np.int64).reshape(-1, 2) for member, found in spans.items()},
        size,
        faults.counts,
        faults.names,
    )


def _kind(reason: str) -> str:
    if "more than once" in reason:
        return DUPLICATE
    return TRUNCATED if "cut off" in reason or "lost" in reason else CORRUPT
