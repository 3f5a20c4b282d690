"""Where the bytes of pictures are kept: a folder, or storage with the interface of S3, Google Cloud or Azure.

Names are made by the server (`pictures/ab/abcd....png`), never by clients. A file appears whole or not at all.
"""

import logging
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unclip.disk import DiskFull
from unclip.errors import RequestError
from unclip.images.files import write_atomically
from unclip.serve.errors import Unavailable

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z]+/[0-9a-f]{2}/[0-9a-f-]{36}\.png")
_LEFT_OVER_SECONDS = 3600.0
_PROBE = ".check"
_PROBE_BYTES = 4096
_PROBE_SECONDS = 30.0


def picture_name(id: str) -> str:
    """Name of the file of a drawn picture."""
    return f"pictures/{id[:2]}/{id}.png"


def upload_name(id: str) -> str:
    """Name of the file of a given picture."""
    return f"uploads/{id[:2]}/{id}.png"


class Store(ABC):
    """Files by name. Methods raise `Unavailable` where the storage cannot be used now, `KeyError` for a missing file."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """Where the files are, without secrets."""

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Keep a file, in place of one of the same name."""

    @abstractmethod
    def get(self, name: str) -> bytes:
        """Bytes of a file."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def names(self, older: float = 0.0) -> Iterator[str]:
        """Names of the files that were written at least `older` seconds ago."""

    @abstractmethod
    def check(self) -> None:
        """Write a small file. Raises `Unavailable` if the storage cannot be used now."""


def open_store(url: str) -> Store:
    """Store of a URL or of a folder's path. Raises `RequestError` for a URL that names no storage."""
    if "://" not in url:
        return FolderStore(Path(url))
    if url.startswith("file://"):
        return FolderStore(Path(url.removeprefix("file://")))
    return ObjectStore(url)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise KeyError(name)
    return name


class FolderStore(Store):
    """Files in a folder, each written whole and forced to the disk."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def shown(self) -> str:
        """Path of the folder."""
        return str(self.folder)

    def put(self, name: str, data: bytes) -> None:
        """Keep a file. Raises `Unavailable` where the disk is full or the folder cannot be written."""
        self._write(self.folder / _checked(name), data)

    def _write(self, file: Path, data: bytes) -> None:
        try:
            write_atomically(file, data, force=True)
        except DiskFull as error:
            raise Unavailable("the disk of the pictures is full", code="disk_full", after=30) from error
        except OSError as error:
            raise Unavailable(
                f"the folder of the pictures cannot be written ({error.strerror})", code="store_unavailable"
            ) from error

    def get(self, name: str) -> bytes:
        """Bytes of a file."""
        try:
            return (self.folder / _checked(name)).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None
        except OSError as error:
            raise Unavailable(
                f"the folder of the pictures cannot be read ({error.strerror})", code="store_unavailable"
            ) from error

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.folder / _checked(name)).unlink(missing_ok=True)

    def names(self, older: float = 0.0) -> Iterator[str]:
        """Names of older files. What writers that were killed over an hour ago left is removed."""
        for file in self.folder.glob("*/*/*"):
            try:
                age = time.time() - file.stat().st_mtime
            except FileNotFoundError:
                continue
            name = file.relative_to(self.folder).as_posix()
            if _NAME.fullmatch(name):
                if age >= older:
                    yield name
            elif file.name.endswith(".part") and age > _LEFT_OVER_SECONDS:
                file.unlink(missing_ok=True)

    def check(self) -> None:
        """Write a small file. Raises `Unavailable` where the disk is full or the folder cannot be written."""
        self._write(self.folder / _PROBE, b"\0" * _PROBE_BYTES)


class ObjectStore(Store):
    """Objects in storage that obstore knows, such as `s3://bucket/prefix`; keys come from the environment.

    `AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_REGION` say where S3-compatible storage is.
    """

    def __init__(self, url: str):
        from obstore.store import from_url

        self._url = url
        self._written: float | None = None
        retry: Any = {"max_retries": 2, "retry_timeout": _seconds(10)}
        client: Any = {"timeout": "20s", "connect_timeout": "5s"}
        if os.environ.get("AWS_ENDPOINT", os.environ.get("AWS_ENDPOINT_URL", "")).startswith("http://"):
            client["allow_http"] = True
        try:
            self._store: Any = from_url(url, retry_config=retry, client_options=client)
        except Exception as error:
            raise RequestError(f"--store {url!r} cannot be used: {_first_line(error)}") from None

    @property
    def shown(self) -> str:
        """The URL."""
        return self._url

    def put(self, name: str, data: bytes) -> None:
        """Keep an object."""
        import obstore

        with _Reachable():
            obstore.put(self._store, _checked(name), data)

    def get(self, name: str) -> bytes:
        """Bytes of an object."""
        import obstore

        with _Reachable():
            return bytes(obstore.get(self._store, _checked(name)).bytes())

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""
        import obstore

        try:
            with _Reachable():
                obstore.delete(self._store, _checked(name))
        except KeyError:
            return

    def names(self, older: float = 0.0) -> Iterator[str]:
        """Names of older objects."""
        import obstore

        with _Reachable():
            for chunk in obstore.list(self._store):
                for one in chunk:
                    if (
                        _NAME.fullmatch(str(one["path"]))
                        and time.time() - one["last_modified"].timestamp() >= older
                    ):
                        yield str(one["path"])

    def check(self) -> None:
        """Write a small object, unless one was written within half a minute. Raises `Unavailable` where it cannot be."""
        import obstore

        now = time.monotonic()
        if self._written is not None and now - self._written < _PROBE_SECONDS:
            with _Reachable():
                obstore.head(self._store, _PROBE)
            return
        with _Reachable():
            obstore.put(self._store, _PROBE, b"\0" * _PROBE_BYTES)
        self._written = now


class _Reachable:
    """Context in which errors of obstore become `Unavailable`, and `KeyError` for an object that is not there."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, KeyError):
            return
        if isinstance(error, FileNotFoundError):
            raise KeyError(str(error)) from None
        logger.error("the store cannot be used: %s", _first_line(error))
        raise Unavailable("the store of the pictures cannot be used now", code="store_unavailable") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _seconds(value: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=value)
