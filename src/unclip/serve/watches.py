"""Watches: how threads wait for changes of the database by other threads, processes and machines."""

import contextlib
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from typing import Any

from sqlalchemy.engine import URL

from unclip.serve.bells import Bell

_LOOK_SECONDS = 0.1
"""Time between two looks at SQLite's count of changes, for those of processes that cannot ring."""
_HEAR_SECONDS = 1.0
"""Time after which a change is assumed though no bell rang."""
_ASK_SECONDS = 0.04
"""The same where there are no bells."""


class Watch(ABC):
    """A watch for changes of the database by other connections."""

    @abstractmethod
    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        """Wait until the database has changed since the last call, `stop` is set, or time is over; whether it changed."""

    @abstractmethod
    def heard(self) -> bool:
        """Whether the database may have changed since the last call; asked after every sampling step, so it costs little."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


class SqliteWatch(Watch):
    """Bells, and SQLite's count of the changes that other connections commit."""

    def __init__(self, file: str, bell: Bell):
        self._file, self._bell = file, bell
        self._looked = 0.0
        self._connection: sqlite3.Connection | None = None
        self._seen = -1

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        end = time.monotonic() + seconds
        while not (stop is not None and stop.is_set()):
            if (now := self._version()) != self._seen:
                self._seen = now
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._bell.wait(min(_LOOK_SECONDS, left))
        return False

    def heard(self) -> bool:
        now = time.monotonic()
        every = _HEAR_SECONDS if self._bell.is_heard else _ASK_SECONDS
        if self._bell.wait(0.0) or now - self._looked >= every:
            self._looked = now
            return True
        return False

    def _version(self) -> int:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    self._file, timeout=0.1, isolation_level=None, check_same_thread=False
                )
            return self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return self._seen

    def close(self) -> None:
        self._bell.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresWatch(Watch):
    """PostgreSQL notifies; without a connection, a change is assumed every second."""

    def __init__(self, url: URL, channel: str):
        self._channel = channel
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: Any = None
        self._looked = 0.0

    def heard(self) -> bool:
        now = time.monotonic()
        if now - self._looked < _ASK_SECONDS:
            return False
        self._looked = now
        return True

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        import psycopg

        end = time.monotonic() + seconds
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, autocommit=True)
                self._connection.execute(f"LISTEN {self._channel}")
                return True
            while not (stop is not None and stop.is_set()):
                left = end - time.monotonic()
                if left <= 0:
                    return False
                if list(self._connection.notifies(timeout=min(left, 0.25), stop_after=1)):
                    return True
            return False
        except psycopg.Error:
            self.close()
            if stop is not None:
                stop.wait(min(1.0, seconds))
            else:
                time.sleep(min(1.0, seconds))
            return True

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None
