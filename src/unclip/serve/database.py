"""The database: SQLite in one file, or PostgreSQL; transactions with one writer at a time, and a watch for changes.

One writer at a time makes events visible in the order of their numbers and a claim of work a plain query. SQLite works so
by itself; in PostgreSQL, writers take an advisory lock.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, insert, inspect, select
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from unclip.errors import RequestError
from unclip.serve import tables
from unclip.serve.errors import Unavailable

logger = logging.getLogger(__name__)

_LOCK = 0x756E636C6970  # number of the advisory lock
_CHANNEL = "unclip"
_BUSY_SECONDS = 10.0
_POLL_SECONDS = 0.02


class Database:
    """A database of jobs and pictures. Methods may be called from any thread; errors become `Unavailable`."""

    def __init__(self, url: str, *, busy: float = _BUSY_SECONDS):
        self.url = _read_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._busy = busy
        if self.is_sqlite:
            Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
        self._reader = self._engine("BEGIN", "FULL")
        self._writer = self._engine("BEGIN IMMEDIATE", "FULL")
        self._notes = self._engine("BEGIN IMMEDIATE", "NORMAL")
        self._make_tables()

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections."""
        for engine in (self._reader, self._writer, self._notes):
            engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Transaction that only reads."""
        with _translated(self), self._reader.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Transaction of the only writer, on the disk when it ends."""
        with _translated(self), self._writer.begin() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
                connection.exec_driver_sql(f"NOTIFY {_CHANNEL}")
            yield connection

    @contextlib.contextmanager
    def note(self) -> Iterator[Connection]:
        """Transaction of what may be lost with the machine's power: heartbeats and progress."""
        with _translated(self), self._notes.begin() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
                connection.exec_driver_sql(f"NOTIFY {_CHANNEL}")
            yield connection

    def watch(self) -> "Watch":
        """A watch for changes, for one thread."""
        return _SqliteWatch(str(self.url.database)) if self.is_sqlite else _PostgresWatch(self.url)

    def _engine(self, begin: str, synchronous: str) -> Engine:
        if not self.is_sqlite:
            return create_engine(self.url, pool_pre_ping=True, pool_size=5, max_overflow=15)
        engine = create_engine(
            self.url,
            connect_args={"timeout": self._busy, "check_same_thread": False},
            pool_size=5,
            max_overflow=35,
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _record: Any) -> None:
            connection.isolation_level = None
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    def _make_tables(self) -> None:
        with self.write() as connection:
            tables.metadata.create_all(connection)
            query = select(tables.meta.c.value).where(tables.meta.c.key == "version")
            found = connection.execute(query).scalar()
            if found is None:
                connection.execute(insert(tables.meta).values(key="version", value=str(tables.VERSION)))
            elif not found.isdigit():
                raise RequestError(f"the database {self.shown} is not one of unclip: give another")
            elif int(found) > tables.VERSION:
                raise RequestError(
                    f"the database {self.shown} has tables of version {found}, this program knows version "
                    f"{tables.VERSION}: use a later version of unclip, or another database"
                )
            self._check_columns(connection)

    def _check_columns(self, connection: Connection) -> None:
        """Raise `RequestError` where a table that was there is another program's, or an unfinished version's."""
        looking = inspect(connection)
        for table in tables.metadata.sorted_tables:
            there = {column["name"] for column in looking.get_columns(table.name)}
            if missing := [column.name for column in table.columns if column.name not in there]:
                raise RequestError(
                    f"the database {self.shown} has a table {table.name!r} without the column {missing[0]!r}: it is not one of "
                    "unclip, or one of an unfinished version; give another"
                )


def shown_url(url: str) -> str:
    """A URL without its password."""
    return _read_url(url).render_as_string(hide_password=True)


def _read_url(url: str) -> URL:
    """A URL of SQLite or PostgreSQL. Raises `RequestError` for another one."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise RequestError(
            f"--database {url!r} is not a URL: give sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from None
    backend = parsed.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    raise RequestError(
        f"--database {parsed.render_as_string(hide_password=True)!r} cannot be used: give sqlite:///FILE or "
        "postgresql://USER:PASSWORD@HOST/NAME"
    )


@contextlib.contextmanager
def _translated(database: Database) -> Iterator[None]:
    """Context in which errors of the database itself become `Unavailable`."""
    try:
        yield
    except NoSuchModuleError as error:
        raise RequestError(f"the database {database.shown} has no driver here: {error}") from None
    except DBAPIError as error:
        if type(error).__name__ in ("IntegrityError", "ProgrammingError", "DataError"):
            raise
        reason = str(error.orig).strip().partition("\n")[0]
        logger.error("the database cannot be used: %s", reason)
        raise Unavailable("the database cannot be used now", code="database_unavailable") from error
    except SQLAlchemyError as error:
        if type(error).__name__ != "TimeoutError":
            raise
        raise Unavailable("the database has no free connection", code="database_unavailable") from error


class Watch(ABC):
    """A watch for changes of the database by other connections."""

    @abstractmethod
    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        """Wait until the database has changed since the last call, `stop` is set, or time is over; whether it changed."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


class _SqliteWatch(Watch):
    """SQLite counts the changes that other connections commit."""

    def __init__(self, file: str):
        self._file = file
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
            time.sleep(min(_POLL_SECONDS, left))
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
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _PostgresWatch(Watch):
    """PostgreSQL notifies; without a connection, a change is assumed every second."""

    def __init__(self, url: URL):
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: Any = None

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        import psycopg

        end = time.monotonic() + seconds
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, autocommit=True)
                self._connection.execute(f"LISTEN {_CHANNEL}")
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
