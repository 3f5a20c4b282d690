"""A cache of pieces of files on a local disk, within a budget: written whole, the least recently used removed first."""

import contextlib
import fcntl
import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from unclip.data.stream.store import Entry, Span, Store
from unclip.disk import disk_full, is_full, remove_abandoned

GIB = 1 << 30
_ROOM = "make room, give the cache a smaller budget (data.cache_gib), or keep it on another disk (data.cache)"


class DiskCache:
    """Files by name in a folder whose sizes stay within `budget` bytes. Processes and threads may share it.

    A file appears when it is complete, and is a hit until it is removed; one that is being read stays readable.
    """

    def __init__(self, folder: str | os.PathLike[str], budget: int = 20 * GIB):
        if budget < 1:
            raise ValueError(f"a cache needs a budget of at least one byte, not {budget}")
        self.folder, self.budget, self._place = Path(folder), budget, os.fspath(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.hits = self.misses = 0
        self._begin()

    def _begin(self) -> None:
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        # As if it were full, so that what another process left is measured first.
        self._room = 0

    def path(self, name: str, make: Callable[[], bytes]) -> Path:
        """The file of `name`, made by `make` where it is not there. Read it at once: it may be removed later."""
        return Path(self._made(name, make))

    def _made(self, name: str, make: Callable[[], bytes]) -> str:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        path = f"{self._place}/{digest[:2]}/{digest[2:]}"
        if self._is_hit(path):
            return path
        with self._lock:
            own = self._locks.setdefault(digest, threading.Lock())
        with own:
            if not self._is_hit(path):
                self.misses += 1
                self._write(Path(path), make())
        with self._lock:
            self._locks.pop(digest, None)
        return path

    def _is_hit(self, path: str) -> bool:
        try:
            # Its time is that of its last use.
            os.utime(path)
        except FileNotFoundError:
            return False
        self.hits += 1
        return True

    @contextlib.contextmanager
    def opened(self, name: str, make: Callable[[], bytes]) -> Iterator[int]:
        """A descriptor of the file of `name`, for `os.pread`."""
        while True:
            path = self._made(name, make)
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                # Removed by another process since.
                continue
            break
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, name: str, make: Callable[[], bytes], spans: Sequence[Span]) -> list[bytes]:
        """Ranges of the file of `name`."""
        with self.opened(name, make) as descriptor:
            return [os.pread(descriptor, length, offset) for offset, length in spans]

    def _write(self, path: Path, data: bytes) -> None:
        with self._lock:
            self._make_room(len(data))
        path.parent.mkdir(exist_ok=True)
        temporary = self.folder / f".{secrets.token_hex(8)}.part"
        try:
            try:
                temporary.write_bytes(data)
            except OSError as error:
                if not is_full(error):
                    raise
                raise disk_full(path, len(data), what="a piece of the data", remedy=_ROOM) from error
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Remove the files that were not used for longest, until `size` bytes and a share for others fit."""
        if size > self.budget:
            raise ValueError(
                f"the cache's budget of {self.budget:,} bytes is less than one piece of {size:,}: give it more room"
            )
        self._room -= size
        if self._room >= 0:
            return
        with open(self.folder / ".lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            remove_abandoned(self.folder, ".*.part")
            files = sorted(self._files(), key=lambda one: one[0])
            total = sum(one[1] for one in files)
            # Some at once, so that the folder is not listed for every piece.
            share = max(size, min(self.budget // 20, self.budget - size))
            for _, length, path in files:
                if total + share <= self.budget:
                    break
                path.unlink(missing_ok=True)
                total -= length
            self._room = share - size

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        for folder in self.folder.iterdir():
            if not folder.is_dir():
                continue
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    yield status.st_mtime_ns, status.st_size, path

    def size(self) -> int:
        """Bytes of all files."""
        return sum(one[1] for one in self._files())

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "budget": self.budget}

    def __setstate__(self, state: dict[str, Any]) -> None:
        DiskCache.__init__(self, **state)


class CachedStore:
    """A store whose reads go through a disk cache, in pieces of `piece` bytes.

    versions: of files by name; a file that has changed is another one to the cache.
    """

    def __init__(self, store: Store, cache: DiskCache, versions: Mapping[str, str], piece: int = 4 << 20):
        self.store, self.cache, self.piece = store, cache, min(piece, cache.budget)
        self.versions, self.url = versions, store.url

    def files(self) -> Iterator[Entry]:
        """Every file."""
        return self.store.files()

    def read(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Ranges of a file, by the cached pieces that hold them."""
        return [self._read(name, span) for span in spans]

    def _read(self, name: str, span: Span) -> bytes:
        start, stop = span[0], span[0] + span[1]
        parts = []
        for number in range(start // self.piece, -(-stop // self.piece)):
            first = number * self.piece

            def make(first: int = first) -> bytes:
                return self.store.read(name, [(first, self.piece)])[0]

            inside = (max(start, first) - first, min(stop, first + self.piece) - max(start, first))
            known = f"{self.url}\n{name}\n{self.versions.get(name)}\n{self.piece}\n{number}"
            parts += self.cache.read(known, make, [inside])
        return b"".join(parts)

    def get(self, name: str) -> bytes:
        """A whole file, not through the cache."""
        return self.store.get(name)

    def open(self, name: str) -> BufferedReader:
        """A file, not through the cache."""
        return self.store.open(name)

    def put(self, name: str, data: bytes) -> None:
        """Write a file to the store."""
        self.store.put(name, data)

    def exists(self, name: str) -> bool:
        """Whether the store has the file."""
        return self.store.exists(name)
