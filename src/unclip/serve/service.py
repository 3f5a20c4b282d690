"""The server's parts in one place, and what routes of every API do through it."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from unclip.errors import RequestError
from unclip.generate.request import Request, compact
from unclip.serve.catalog import Catalog
from unclip.serve.database import Database, shown_url
from unclip.serve.departed import Departed
from unclip.serve.errors import NotFound, ServerError, Unavailable
from unclip.serve.events import Hub
from unclip.serve.leases import Reaper
from unclip.serve.library import Library
from unclip.serve.plan import group_of, kind_of, prompt_of, split, with_seed
from unclip.serve.queue import Queue
from unclip.serve.queue_records import NewJob
from unclip.serve.settings import Settings
from unclip.serve.shapes import Job
from unclip.serve.states import job_row
from unclip.serve.store import open_store
from unclip.serve.tables import pictures, uploads
from unclip.serve.views import job_view

logger = logging.getLogger(__name__)


class Service:
    """A server without HTTP: database, store, queue, library, models, events, and the threads that keep them going.

    All methods but `hub`'s may be called from any thread, and wait for the database.
    """

    key_required = False
    """Whether clients need an API key."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.started = time.monotonic()
        self.database = Database(settings.database_url)
        self.store = open_store(settings.store_url)
        self.queue = Queue(self.database, max_queue=settings.max_queue)
        self.library = Library(self.database, self.store, settings)
        self.catalog = Catalog(settings.models)
        self.hub = Hub(self.database)
        self.draining = threading.Event()
        self._stop = threading.Event()
        self._departed = Departed(Path(settings.folder))
        self._encoding = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._workers: list[Any] = []

    def start(self) -> None:
        """Start the threads: events, care for workers that are gone, and workers in threads if the settings have some."""
        from unclip.serve.worker import Worker

        self.hub.start()
        self._threads.append(threading.Thread(target=self._care, name="care", daemon=True))
        for number in range(self.settings.threads):
            worker = Worker(self.settings, self.database, self.store)
            self._workers.append(worker)
            self._threads.append(threading.Thread(target=worker.run, name=f"worker {number}", daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End all threads and connections; workers in threads give up what they draw, which waits again."""
        self._stop.set()
        for worker in self._workers:
            worker.stop(now=True)
        self.hub.close()
        for thread in self._threads:
            thread.join()
        self.database.close()

    def submit(
        self,
        request: Request,
        sources: Sequence[tuple[str, str]] = (),
        *,
        model: str | None = None,
        priority: int = 0,
        previews: bool = True,
        collection: str | None = None,
        client: str | None = None,
    ) -> str:
        """Id of the job that a request became. `sources` are roles and ids of given pictures, in the request's order.

        Raises `RequestError` and `Unsupported` for a request that cannot be drawn, `QueueFull`, and `Unavailable`
        where the server is ending.
        """
        if self.draining.is_set():
            raise Unavailable("the server is ending: try again soon", code="shutting_down")
        name = self.catalog.resolve(model)
        request = with_seed(request)
        checked = self.catalog.check(name, request, len(sources))
        alone = split(request)
        if len(alone) > self.settings.max_n:
            raise RequestError(
                f"{len(alone)} pictures were asked for: this server makes up to {self.settings.max_n} at a time"
            )
        self._check_sources([id for _, id in sources])
        id = self.queue.submit(
            NewJob(
                kind=kind_of(request),
                request=compact(request),
                alone=[compact(one) for one in alone],
                groups=[group_of(one, name, checked.digest, checked.sampling, checked.size) for one in alone],
                sources=list(sources),
                model=name,
                priority=priority,
                previews=previews,
                collection=collection,
                client=client,
            )
        )
        logged = {"prompt": prompt_of(request)} if self.settings.log_prompts else {}
        logger.info(
            "job", extra={"job": id, "kind": kind_of(request), "model": name, "n": len(alone), **logged}
        )
        return id

    def job(self, id: str) -> Job:
        """A job as JSON. Raises `NotFound`."""
        with self.database.read() as connection:
            found = job_view(connection, id)
        if found is None:
            raise NotFound("job", id)
        return found

    def check_job(self, id: str) -> None:
        """Raise `NotFound` where there is no such job."""
        with self.database.read() as connection:
            job_row(connection, id)

    def cancel(self, id: str) -> None:
        """End a job whose client has gone: now, or as soon as the database can be written. One that is gone is left alone."""
        try:
            with contextlib.suppress(NotFound):
                self.queue.cancel(id)
        except Unavailable as error:
            logger.warning("a job will be cancelled later: %s", error.message)
            self._departed.add(id)
        else:
            self._departed.discard(id)

    @contextlib.contextmanager
    def encoder(self, name: str) -> Iterator[Any]:
        """The model of a name in this process, of which only CLIP is loaded, for one caller at a time."""
        with self._encoding:
            yield self.catalog.model(name)

    def _check_sources(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        with self.database.read() as connection:
            found = {
                id
                for table in (uploads, pictures)
                for id in connection.execute(select(table.c.id).where(table.c.id.in_(ids))).scalars()
            }
        for id in ids:
            if id not in found:
                raise ServerError(
                    400, f"there is no given picture {id[:64]!r}: upload it first", param="sources"
                )

    def _care(self) -> None:
        """Give back the work of workers that are gone; clean up now and then."""
        reaper = Reaper(self.database, self.settings.lease, self.settings.max_attempts)
        every = min(1.0, self.settings.lease / 4)
        rounds = 0
        while not self._stop.wait(every):
            try:
                reaper.reap()
                for id in self._departed.jobs:
                    self.cancel(id)
                if rounds % 3600 == 0:
                    self.library.clean()
                rounds += 1
            except Unavailable:
                continue
            except Exception:
                logger.exception("care for the queue failed")


def check_places(settings: Settings) -> None:
    """Open database, store and models once, before anything listens.

    Raises `RequestError`, `OSError` or `ModelError`, whose messages name what cannot be used.
    """
    from unclip.formats.registry import resolve

    for spec in settings.models.values():
        resolve(spec)
    try:
        Database(settings.database_url).close()
    except Unavailable as error:
        reason = str(getattr(error.__cause__, "orig", None) or error.message).strip().partition("\n")[0]
        raise OSError(
            f"the database {shown_url(settings.database_url)} cannot be used ({reason}): give another with --database or "
            "--folder, or see that this one runs and may be written"
        ) from None
    try:
        open_store(settings.store_url).check()
    except Unavailable as error:
        raise OSError(
            f"{error.message}: {settings.store_url}; give another with --store or --folder"
        ) from None


def read_sources(request: Request, given: Mapping[str, str | Sequence[str]]) -> list[tuple[str, str]]:
    """Roles and ids in the request's order, from JSON such as {"picture": ID, "mask": ID}; the last may hold a list.

    Raises `RequestError` for a role that the request does not have.
    """
    kind, taken = kind_of(request), type(request).sources
    if unknown := sorted(set(given) - set(taken.names)):
        raise RequestError(
            f"a request of the kind {kind!r} takes no picture {unknown[0][:64]!r}: it takes "
            f"{', '.join(taken.names) or 'none'}"
        )
    found: list[tuple[str, str]] = []
    for position, role in enumerate(taken.names):
        value = given.get(role)
        ids = [] if value is None else [value] if isinstance(value, str) else list(value)
        if len(ids) > 1 and not (taken.repeated and position == len(taken.names) - 1):
            raise RequestError(f"{role} is one picture of a request of the kind {kind!r}: give one id")
        if not ids and position < taken.required:
            raise RequestError(
                f"a request of the kind {kind!r} needs the picture {role!r}: give its id in sources"
            )
        found += [(role, id) for id in ids]
    return found
