"""Files by name on a disk or an object store: listed, read by ranges, written whole. Object stores need `unclip[cloud]`."""

import io
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from unclip.data.stream.faults import RETRIED, Faults
from unclip.images import write_atomically

T = TypeVar("T")
_AHEAD = 1 << 20
Span = tuple[int, int]
"""Offset and length in bytes."""


class Entry(NamedTuple):
    """A file of a store. stamp: its time or its entity tag."""

    name: str
    size: int
    stamp: str


class Vanished(FileNotFoundError):
    """A file that is no longer there."""


class StoreFailure(ConnectionError):
    """An object store that does not answer, or answers with errors, however often it is asked."""


@runtime_checkable
class Store(Protocol):
    """Files below a folder or a URL. Objects of this kind can be sent to other processes."""

    url: str

    def files(self) -> Iterator[Entry]:
        """Every file but hidden ones, in no particular order."""
        ...

    def read(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of some ranges of a file; those beyond its end are short. Raises `Vanished` and `StoreFailure`."""
        ...

    def get(self, name: str) -> bytes:
        """A whole file. Raises `Vanished` and `StoreFailure`."""
        ...

    def open(self, name: str) -> BufferedReader:
        """A file that can be read and sought in. Raises `Vanished` and `StoreFailure`."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, in place of another of its name."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        ...


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place is the URL of an object store, such as s3://bucket/folder."""
    return "://" in os.fspath(place)


def open_store(place: str | os.PathLike[str], options: "StoreOptions | None" = None) -> Store:
    """The store of a folder, or of a URL such as s3://bucket/folder (also gs://, az://, https://)."""
    text = os.fspath(place)
    return ObjectStore(text, options or StoreOptions()) if is_url(text) else LocalStore(text)


class LocalStore:
    """Files of a folder. Names are relative, with forward slashes."""

    _MOST_OPEN = 64

    def __init__(self, folder: str | os.PathLike[str]):
        # Absolute, as caches go by it and work goes to other processes.
        self.url = os.path.abspath(folder)
        self._root = Path(self.url)
        self._forget()

    def _forget(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()
        self._lock, self._owner = threading.Lock(), os.getpid()

    def files(self) -> Iterator[Entry]:
        """Every file but hidden ones; links to folders are not followed, nor links that lead out of the folder."""
        root = self._root.resolve()
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(self._root / folder) as found:
                for one in found:
                    name = f"{folder}{one.name}"
                    if one.name.startswith("."):
                        continue
                    if one.is_dir(follow_symlinks=False):
                        folders.append(f"{name}/")
                    elif one.is_file() and (
                        not one.is_symlink() or Path(one.path).resolve().is_relative_to(root)
                    ):
                        status = one.stat()
                        yield Entry(name, status.st_size, f"{status.st_mtime_ns}")

    def read(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Ranges of a file, by pread."""
        with self._lock if self._owner == os.getpid() else self._reset():
            descriptor = self._descriptor(name)
            return [os.pread(descriptor, length, offset) for offset, length in spans]

    def _reset(self) -> threading.Lock:
        # A descriptor opened before a fork is not this process's to close.
        self._forget()
        return self._lock

    def _descriptor(self, name: str) -> int:
        if name not in self._open:
            while len(self._open) >= self._MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
            try:
                self._open[name] = os.open(self._root / name, os.O_RDONLY)
            except FileNotFoundError:
                raise Vanished(f"{self._root / name} is not there") from None
        self._open.move_to_end(name)
        return self._open[name]

    def get(self, name: str) -> bytes:
        """A whole file."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            raise Vanished(f"{self._root / name} is not there") from None

    def open(self, name: str) -> BufferedReader:
        """An open file."""
        try:
            return open(self._root / name, "rb")
        except FileNotFoundError:
            raise Vanished(f"{self._root / name} is not there") from None

    def put(self, name: str, data: bytes) -> None:
        """A file, under a temporary name until it is complete."""
        write_atomically(self._root / name, data, force=True)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._root / name).is_file()

    def close(self) -> None:
        """Close the open files; they open again when needed."""
        if self._owner == os.getpid():
            with self._lock:
                while self._open:
                    os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LocalStore.__init__(self, state["url"])


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """How an object store is asked."""

    attempts: int = 6
    """Requests until one that fails with a 5xx, a broken connection or a timeout is an error."""
    timeout: float = 60.0
    """Seconds that a request may take."""
    pause: float = 0.2
    """Seconds before the second attempt; doubled before each further one."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no request."""
        if self.attempts < 1 or self.timeout <= 0 or self.pause < 0:
            raise ValueError(
                f"a store needs at least one attempt, a positive timeout and a pause of at least 0, not {self}"
            )


class ObjectStore:
    """Objects below a URL. Credentials, region and endpoint come from the environment (AWS_ENDPOINT_URL, ...).

    Requests that fail are repeated, counted in `faults`, and raise `StoreFailure` at last.
    """

    def __init__(self, url: str, options: StoreOptions):
        self.url, self.options = url.rstrip("/"), options
        self.faults = Faults()
        self._connect()

    def _connect(self) -> None:
        try:
            import obstore  # pyright: ignore[reportMissingImports]
            from obstore import store  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(
                f"reading {self.url} needs obstore: install it with `pip install 'unclip[cloud]'`"
            ) from error
        self._api = obstore
        # Plain HTTP is allowed where the endpoint is given as such, as servers on this machine are.
        plain = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", "")).startswith("http://")
        self._store = store.from_url(
            self.url,
            client_options={"timeout": timedelta(seconds=self.options.timeout), "allow_http": plain},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=self.options.timeout)},
        )

    def _asked(self, name: str, request: Callable[[], T]) -> T:
        """The answer to a request, repeated while it fails for no fault of its own."""
        errors = self._api.exceptions
        lasting = (errors.PermissionDeniedError, errors.UnauthenticatedError, errors.InvalidPathError)
        last: BaseException | None = None
        for attempt in range(self.options.attempts):
            if attempt:
                time.sleep(self.options.pause * 2 ** (attempt - 1))
            try:
                return request()
            except (errors.NotFoundError, FileNotFoundError):
                raise Vanished(f"{self.url}/{name} is not there") from None
            except lasting as error:
                raise PermissionError(f"{self.url}/{name}: {_first_line(error)}") from error
            except (errors.BaseError, OSError) as error:
                last = error
                self.faults.record(RETRIED, name, _first_line(error))
        raise StoreFailure(
            f"{self.url}/{name}: no answer in {self.options.attempts} attempts ({_first_line(last)}); run again later"
        ) from last

    def files(self) -> Iterator[Entry]:
        """Every object but those with a hidden name."""
        last: str | None = None
        pages: Iterator[Any] | None = None

        def following() -> Any:
            nonlocal pages
            if pages is None:
                pages = iter(self._api.list(self._store, offset=last, chunk_size=1000))
            try:
                return next(pages, None)
            except BaseException:
                # Asked again, it goes on behind the last name.
                pages = None
                raise

        while page := self._asked("", following):
            for one in page:
                last = name = str(one["path"])
                if not any(part.startswith(".") for part in name.split("/")):
                    yield Entry(name, int(one["size"]), str(one.get("e_tag") or one.get("last_modified")))

    def read(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Ranges of an object; near ones are asked for together."""
        starts, lengths = ([max(0, span[axis]) for span in spans] for axis in range(2))
        try:
            found = self._asked(
                name,
                lambda: self._api.get_ranges(self._store, name, starts=starts, lengths=lengths),
            )
        except StoreFailure:
            # A range behind the end of a truncated object is an error of its request.
            size = self._asked(name, lambda: self._api.head(self._store, name))["size"]
            if all(start + length <= size for start, length in zip(starts, lengths)):
                raise
            inside = [(start, min(length, size - start)) for start, length in zip(starts, lengths)]
            return [self.read(name, [span])[0] if span[1] > 0 else b"" for span in inside]
        return [bytes(one) for one in found]

    def get(self, name: str) -> bytes:
        """A whole object."""
        return self._asked(name, lambda: bytes(self._api.get(self._store, name).bytes()))

    def open(self, name: str) -> BufferedReader:
        """An object that is read in pieces as it is needed."""
        size = self._asked(name, lambda: self._api.head(self._store, name))["size"]
        return BufferedReader(_Object(self, name, size), _AHEAD)

    def put(self, name: str, data: bytes) -> None:
        """An object; stores show it when it is complete."""
        self._asked(name, lambda: self._api.put(self._store, name, data))

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            self._asked(name, lambda: self._api.head(self._store, name))
        except Vanished:
            return False
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        ObjectStore.__init__(self, **state)


class _Object(io.RawIOBase):
    """An object as a file, for readers of parquet, tar and tables."""

    def __init__(self, store: ObjectStore, name: str, size: int):
        super().__init__()
        self._store, self._name, self._size, self._place = store, name, size, 0

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with one request."""
        count = max(0, min(len(buffer), self._size - self._place))
        data = self._store.read(self._name, [(self._place, count)])[0] if count else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place."""
        self._place = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence] + offset
        return self._place

    def tell(self) -> int:
        """The place."""
        return self._place

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True


def _first_line(error: BaseException | None) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :200
    ]
