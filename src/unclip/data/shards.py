"""Tar shards in webdataset's naming, written reproducibly, with an index beside each for random access.

`artwork-train-00000.tar` holds `000000.png`, `000000.json`, `000001.png`, ...; `artwork-train-00000.idx` is JSON:
`{"format": 1, "size": BYTES, "samples": [{"key": "000000", "members": {"png": [OFFSET, LENGTH], ...}}, ...]}`.
"""

import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unclip.data.decode import EXTENSIONS, MAX_BYTES, decode
from unclip.data.sample import (
    BadSample,
    BadSamples,
    Sample,
    captions_in,
    digest_of,
    read_json,
    shown,
    weight_in,
)
from unclip.data.shard_files import BLOCK, check_is_tar, read_index, scan
from unclip.images import write_atomically
from unclip.text_files import decode as decode_text
from unclip.text_files import split_lines


def tar_member(name: str, data: bytes) -> bytes:
    """Header, content and padding of one tar member with no time, owner or permission of this machine in it."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode, info.uid, info.gid = len(data), 0, 0o644, 0, 0
    header = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    return header + data + bytes(-len(data) % BLOCK)


class ShardWriter:
    """Writes `{prefix}-{split}-{number}.tar` files of at most `per_shard` samples each, and their indexes.

    Files appear under their final name only when they are complete. Use as a context manager.
    """

    def __init__(self, folder: Path, prefix: str, per_shard: int = 1000):
        self.folder, self.prefix, self.per_shard = folder, prefix, per_shard
        self.count = 0
        self.paths: list[Path] = []
        self._buffer = io.BytesIO()
        self._samples: list[dict] = []

    def add(self, members: dict[str, bytes]) -> None:
        """Append one sample: extension -> content."""
        key = f"{self.count:06d}"
        spans = {}
        for extension, data in members.items():
            block = tar_member(f"{key}.{extension}", data)
            spans[extension] = [
                self._buffer.tell() + len(block) - len(data) - (-len(data) % BLOCK),
                len(data),
            ]
            self._buffer.write(block)
        self._samples.append({"key": key, "members": spans})
        self.count += 1
        if len(self._samples) == self.per_shard:
            self._flush()

    def _flush(self) -> None:
        if not self._samples:
            return
        # Two empty blocks end a tar file.
        self._buffer.write(bytes(2 * BLOCK))
        path = self.folder / f"{self.prefix}-{len(self.paths):05d}.tar"
        index = {"format": 1, "size": self._buffer.tell(), "samples": self._samples}
        write_atomically(path, self._buffer.getvalue(), force=True)
        write_atomically(
            path.with_suffix(".idx"), json.dumps(index, separators=(",", ":")).encode() + b"\n", force=True
        )
        self.paths.append(path)
        self._buffer, self._samples = io.BytesIO(), []

    def close(self) -> None:
        """Write the last, partly filled shard."""
        self._flush()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self.close()


@dataclass(frozen=True)
class _Entry:
    shard: int
    key: str
    members: dict[str, tuple[int, int]]


class ShardDataset:
    """Samples of tar shards with random access.

    Indexes written by :class:`ShardWriter` are used where they fit their tar file; other tars are scanned once. Only
    regular members are read, only by offset, and nothing is ever extracted to disk. What a truncated or damaged tar has lost
    is counted in `bad`, by name where an index has it. Names end at their first dot, as in webdataset; pictures whose
    names end otherwise, have no sample of their own, or come twice, are counted and named too. Raises ValueError for a
    compressed tar and for a file that is none. Keys are `tar-name/sample`, as sample names repeat between shards.
    """

    def __init__(self, paths: Sequence[str | Path], bad: BadSamples | None = None):
        self.paths = [Path(path) for path in paths]
        self.bad = bad if bad is not None else BadSamples()
        self._entries: list[_Entry] = []
        self._files: dict[int, int] = {}
        self._owner = os.getpid()
        before = len(self.bad)
        parts: list[object] = []
        for number, path in enumerate(self.paths):
            check_is_tar(path)
            samples = read_index(path, self.bad)
            if samples is None:
                samples = scan(path, self.bad)
            status = path.stat()
            parts += [path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, len(samples)]
            parts += [f"{key}:{sorted(members.items())}" for key, members in samples]
            self._add(number, path, samples)
        self.bad.check(len(self) + len(self.bad) - before)
        self._fingerprint = digest_of(parts)

    def _add(self, number: int, path: Path, samples: list[tuple[str, dict[str, tuple[int, int]]]]) -> None:
        size = path.stat().st_size
        for key, members in samples:
            name = f"{shown(path.stem)}/{key}"
            if any(offset + length > size for offset, length in members.values()):
                self.bad.record(name, f"cut off: {path.name} is truncated")
            elif not any(extension in EXTENSIONS for extension in members):
                self.bad.record(name, "has no picture")
            elif "json" not in members and "txt" not in members:
                self.bad.record(name, "has no caption (.json or .txt)")
            else:
                self._entries.append(_Entry(number, key, members))

    @property
    def fingerprint(self) -> str:
        """Digest of names, sizes, times and layout of the shards (their content is not read)."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self) -> Sequence[str]:
        """`tar-name/sample` for every sample."""
        return [self._key(entry) for entry in self._entries]

    def _key(self, entry: _Entry) -> str:
        return f"{shown(self.paths[entry.shard].stem)}/{entry.key}"

    def info(self, index: int) -> Sample:
        """Captions, weight and metadata. Raises BadSample for unreadable text or none."""
        entry = self._entries[index]
        key = self._key(entry)
        try:
            record: dict = {}
            if "json" in entry.members:
                record = read_json(decode_text(self._read(entry, "json"), "its .json"))
                if not isinstance(record, dict):
                    raise ValueError("its JSON is not an object")
            captions = captions_in(record)
            if not captions and "txt" in entry.members:
                text = decode_text(self._read(entry, "txt"), "its .txt")
                captions = captions_in({"captions": split_lines(text)})
            if not captions:
                raise ValueError("has no caption")
            return Sample(key, captions, weight_in(record), record)
        except ValueError as error:
            raise BadSample(key, str(error)) from error

    def picture(self, index: int, size: int | None) -> np.ndarray:
        """RGB uint8 (3, h, w), see :func:`unclip.data.decode.decode`. Raises BadSample."""
        entry = self._entries[index]
        extension = next(name for name in EXTENSIONS if name in entry.members)
        try:
            return decode(self._read(entry, extension), size)
        except ValueError as error:
            raise BadSample(self._key(entry), str(error)) from error

    def _read(self, entry: _Entry, extension: str) -> bytes:
        # A descriptor opened before a fork shares nothing that pread would move, but is not ours to close.
        if self._owner != os.getpid():
            self._files, self._owner = {}, os.getpid()
        if entry.shard not in self._files:
            self._files[entry.shard] = os.open(self.paths[entry.shard], os.O_RDONLY)
        offset, length = entry.members[extension]
        if length > MAX_BYTES:
            raise ValueError(f"{length} bytes are more than the {MAX_BYTES} allowed")
        data = os.pread(self._files[entry.shard], length, offset)
        if len(data) != length:
            raise ValueError("cut off in the tar file")
        return data

    def close(self) -> None:
        """Close the shards' files; they open again when needed."""
        for descriptor in self._files.values() if self._owner == os.getpid() else ():
            os.close(descriptor)
        self._files = {}

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}
