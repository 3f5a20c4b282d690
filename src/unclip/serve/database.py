"""The database: SQLite in one file, or PostgreSQL; transactions with one writer at a time.

One writer at a time makes events visible in the order of their numbers and a claim of work a plain query. SQLite works so
by itself; in PostgreSQL, writers take an advisory lock.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, insert, inspect, select, update
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from unclip.errors import RequestError
from unclip.serve import tables
from unclip.serve.bells import Bells
from unclip.serve.errors import Unavailable
from unclip.serve.watches import PostgresWatch, SqliteWatch, Watch

logger = logging.getLogger(__name__)

_LOCK = 0x756E636C6970  # number of the advisory lock
_CHANNEL = "unclip"
_BUSY_SECONDS = 10.0
_CHECK_SECONDS = 2.0


class Database:
    """A database of jobs and pictures. Methods may be called from any thread; errors become `Unavailable`."""

    def __init__(self, url: str, *, busy: float = _BUSY_SECONDS):
        self.url = _read_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._busy = busy
        self._bells = Bells(str(self.url.database)) if self.is_sqlite else None
        if self.is_sqlite:
            Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
        self._reader = self._engine("BEGIN", "FULL")
        self._writer = self._engine("BEGIN IMMEDIATE", "FULL")
        self._notes = self._engine("BEGIN IMMEDIATE", "NORMAL")
        self._checks = self._engine("BEGIN IMMEDIATE", "FULL", min(busy, _CHECK_SECONDS))
        self._make_tables()

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections."""
        for engine in (self._reader, self._writer, self._notes, self._checks):
            engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Transaction that only reads."""
        with _translated(self), self._reader.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Transaction of the only writer, on the disk when it ends unless it need not be `durable`."""
        engine = self._writer if durable else self._notes
        with _translated(self), engine.begin() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
                self._announce(connection, durable=durable)
            yield connection
        if self._bells is not None:
            self._bells.ring()

    @contextlib.contextmanager
    def note(self) -> Iterator[Connection]:
        """Transaction of what may be lost with the machine's power: heartbeats and progress."""
        with _translated(self), self._notes.begin() as connection:
            if not self.is_sqlite:
                self._announce(connection, durable=False)
            yield connection
        if self._bells is not None:
            self._bells.ring(note=True)

    def _announce(self, connection: Connection, *, durable: bool) -> None:
        """Have PostgreSQL notify the watches when the transaction ends."""
        if not durable:
            connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
        connection.exec_driver_sql(f"NOTIFY {_CHANNEL}")

    def watch(self, *, notes: bool = False) -> Watch:
        """A watch for changes, for one thread; one for `notes` hears of progress at once as well."""
        if self._bells is None:
            return PostgresWatch(self.url, _CHANNEL)
        return SqliteWatch(str(self.url.database), self._bells.hang(notes=notes))

    def check(self) -> None:
        """Write a row. Raises `Unavailable` where that cannot be done within two seconds."""
        with _translated(self), self._checks.begin() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_CHECK_SECONDS:g}s'")
            now = {"value": repr(time.time())}
            row = update(tables.meta).where(tables.meta.c.key == "checked").values(**now)
            if not connection.execute(row).rowcount:
                connection.execute(insert(tables.meta).values(key="checked", **now))

    def _engine(self, begin: str, synchronous: str, busy: float | None = None) -> Engine:
        if not self.is_sqlite:
            return create_engine(self.url, pool_pre_ping=True, pool_size=5, max_overflow=15)
        engine = create_engine(
            self.url,
            connect_args={"timeout": self._busy if busy is None else busy, "check_same_thread": False},
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
