"""Events of jobs, sent to whoever follows: durable ones with numbers, from the database, and progress in between."""

import asyncio
import base64
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from unclip.serve.database import Database
from unclip.serve.errors import Unavailable
from unclip.serve.queue import Queue
from unclip.serve.shapes import QueueState
from unclip.serve.states import OPEN_JOBS, is_paused
from unclip.serve.tables import events, jobs, live, tasks, workers
from unclip.serve.views import job_view, picture_view

logger = logging.getLogger(__name__)

MAX_BACKLOG = 5000
"""Events that a follower may be behind; one that reads more slowly is cut off, and resumes by `Last-Event-ID`."""
KEEP_ALIVE_SECONDS = 15.0
_PAGE = 500


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event: `job`, `picture`, `end`, `deleted` and `queue` have a number; `progress` and `preview` have none."""

    type: str
    data: Mapping[str, Any]
    id: int | None = None

    def text(self) -> str:
        """The event as a block of a `text/event-stream` (HTML standard, section 9.2)."""
        number = "" if self.id is None else f"id: {self.id}\n"
        return f"{number}event: {self.type}\ndata: {json.dumps(self.data)}\n\n"


class _Follower:
    """One who follows: a job, or all of them."""

    def __init__(self, job: str | None, loop: asyncio.AbstractEventLoop):
        self.job, self.loop = job, loop
        self.waiting: list[Event] = []
        self.latest: dict[tuple[str, str], Event] = {}
        self.seen: dict[str, tuple[int, int]] = {}
        self.lock = threading.Lock()
        self.bell = asyncio.Event()
        self.closed = False

    def give(self, found: Sequence[Event]) -> None:
        """Pass numbered events on."""
        with self.lock:
            self.waiting += found
            self.closed |= len(self.waiting) > MAX_BACKLOG
        self.ring()

    def show(self, task: str, event: Event) -> None:
        """Pass progress on, in place of what was not read yet."""
        with self.lock:
            self.latest[task, event.type] = event
        self.ring()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self.bell.set)

    def take(self) -> list[Event]:
        with self.lock:
            found = [*self.latest.values(), *self.waiting]
            self.latest, self.waiting = {}, []
        return found


class Hub:
    """Reads new events in one thread, and passes them to all followers."""

    def __init__(self, database: Database):
        self._database = database
        self._followers: list[_Follower] = []
        self._stop = threading.Event()
        self._last = 0
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        with self._database.read() as connection:
            self._last = _newest(connection)
        self._thread.start()

    def close(self) -> None:
        """End all streams, and the thread."""
        self._stop.set()
        for follower in list(self._followers):
            follower.closed = True
            follower.ring()
        if self._thread.is_alive():
            self._thread.join()

    async def follow(self, job: str | None = None, after: int | None = None) -> AsyncIterator[Event]:
        """Events of a job from its beginning, or after number `after`, up to its end; of all jobs, new ones only.

        Ends early where the server ends or the reader is far behind.
        """
        follower = _Follower(job, asyncio.get_running_loop())
        self._followers.append(follower)
        follower.closed = self._stop.is_set()
        try:
            last = after
            if job is not None or after is not None:
                while not follower.closed:
                    past = await asyncio.to_thread(self._past, job, last or 0)
                    for event in past:
                        yield event
                        last = event.id
                        if job is not None and event.type == "end":
                            return
                    if len(past) < _PAGE:
                        break
                if job is not None and (over := await asyncio.to_thread(self._over_or_follow, job)):
                    yield over
                    return
            while not follower.closed:
                follower.bell.clear()
                for event in follower.take():
                    if event.id is not None:
                        if last is not None and event.id <= last:
                            continue
                        last = event.id
                    yield event
                    if job is not None and event.type == "end":
                        return
                await follower.bell.wait()
        finally:
            self._followers.remove(follower)

    async def stream(self, job: str | None = None, after: int | None = None) -> AsyncIterator[str]:
        """`follow` as text of a `text/event-stream`, with comments while nothing happens."""
        source = self.follow(job, after)
        pending: asyncio.Future[Event] | None = None
        yield ": unclip\n\n"
        try:
            while True:
                pending = pending or asyncio.ensure_future(anext(source))
                done, _ = await asyncio.wait([pending], timeout=KEEP_ALIVE_SECONDS)
                if not done:
                    yield ": still here\n\n"
                    continue
                finished, pending = pending, None
                try:
                    yield finished.result().text()
                except StopAsyncIteration:
                    return
        finally:
            if pending is not None:
                pending.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                    await pending
            await source.aclose()  # pyright: ignore[reportAttributeAccessIssue]

    def _past(self, job: str | None, after: int) -> list[Event]:
        query = select(events).where(events.c.id > after).order_by(events.c.id).limit(_PAGE)
        with self._database.read() as connection:
            rows = connection.execute(query if job is None else query.where(events.c.job == job)).all()
            # A job that ended, and was queued again, goes on.
            going = job is not None and _state(connection, job) in OPEN_JOBS
            rows = [row for row in rows if not (going and row.type == "end")]
            return [event for event in _render(connection, rows) if event is not None]

    def _over_or_follow(self, job: str) -> Event | None:
        """The end of a job that is over, for a reader that has seen its last event; an open one is noted as watched."""
        with self._database.read() as connection:
            view = job_view(connection, job) if _state(connection, job) not in OPEN_JOBS else None
        if view is not None:
            return Event(type="end", data=view)
        with contextlib.suppress(Unavailable):
            Queue(self._database).follow(job)
        return None

    def _run(self) -> None:
        watch = self._database.watch(notes=True)
        while not self._stop.is_set():
            watch.wait(1.0, self._stop)
            try:
                self._pass_on()
            except Unavailable:
                self._stop.wait(1.0)
            except Exception:
                logger.exception("events could not be passed on")
                self._stop.wait(1.0)
        watch.close()

    def _pass_on(self) -> None:
        with self._database.read() as connection:
            query = select(events).where(events.c.id > self._last).order_by(events.c.id).limit(_PAGE)
            rows = connection.execute(query).all()
            # Taken after the events: one who comes later reads them from the database.
            followers = list(self._followers)
            wanted = {follower.job for follower in followers}
            mine = [row for row in rows if None in wanted or row.job in wanted]
            found = list(zip(mine, _render(connection, mine)))
            for follower in followers:
                given = [
                    event for row, event in found if event is not None and follower.job in (None, row.job)
                ]
                if given:
                    follower.give(given)
            if rows:
                self._last = rows[-1].id
            self._show_progress(connection, [one for one in followers if one.job is not None])

    def _show_progress(self, connection: Connection, followers: Sequence[_Follower]) -> None:
        columns = [column for column in live.c if column.name != "preview"]
        query = select(*columns).where(live.c.job.in_({follower.job for follower in followers}))
        for row in connection.execute(query).all() if followers else ():
            preview: Event | None = None
            for follower in followers:
                version, seen = follower.seen.get(row.task, (0, 0))
                if follower.job != row.job or row.version == version:
                    continue
                follower.seen[row.task] = (row.version, row.preview_version)
                step = {"picture": row.index, "stage": row.stage, "step": row.step, "steps": row.steps}
                follower.show(row.task, Event(type="progress", data={**step, "fraction": row.fraction}))
                if row.preview_version != seen:
                    preview = preview or _preview(connection, row)
                    if preview is not None:
                        follower.show(row.task, preview)


def _preview(connection: Connection, row: Any) -> Event | None:
    data = connection.execute(select(live.c.preview).where(live.c.task == row.task)).scalar()
    if data is None:
        return None
    image = "data:image/png;base64," + base64.b64encode(data).decode()
    shown = {"picture": row.index, "step": row.step, "image": image, "width": row.width, "height": row.height}
    return Event(type="preview", data=shown)


def _newest(connection: Connection) -> int:
    return connection.execute(select(func.max(events.c.id))).scalar() or 0


def _state(connection: Connection, job: str) -> str | None:
    return connection.execute(select(jobs.c.state).where(jobs.c.id == job)).scalar()


def _render(connection: Connection, rows: Sequence[Any]) -> list[Event | None]:
    """Events of rows, with jobs as they are now; None for a row whose job or picture was removed."""
    views: dict[str, Any] = {}
    found: list[Event | None] = []
    for row in rows:
        if row.type in ("job", "end"):
            if row.job not in views:
                views[row.job] = job_view(connection, row.job)
            data = views[row.job]
        elif row.type == "picture":
            view = picture_view(connection, row.picture)
            data = None if view is None else {"index": view["index"], "job": row.job, "picture": view}
        elif row.type == "queue":
            data = queue_view(connection)
        else:
            data = {"job": row.job, "picture": row.picture}
        found.append(None if data is None else Event(type=row.type, data=data, id=row.id))
    return found


def queue_view(connection: Connection) -> QueueState:
    """The queue as JSON: whether it is paused, how many pictures wait and are drawn, and by whom."""
    counts = dict(
        connection.execute(
            select(tasks.c.state, func.count())
            .where(tasks.c.state.in_(("waiting", "running")))
            .group_by(tasks.c.state)
        ).all()  # pyright: ignore[reportArgumentType]
    )
    rows = connection.execute(select(workers).order_by(workers.c.started)).all()
    return {
        "paused": is_paused(connection),
        "waiting": counts.get("waiting", 0),
        "running": counts.get("running", 0),
        "workers": [
            {
                "id": row.id,
                "host": row.host.partition(" ")[0],
                "device": row.device,
                "models": json.loads(row.models),
                "loaded": json.loads(row.loaded),
                "state": row.state,
                "message": row.message,
            }
            for row in rows
        ],
    }
