"""The queue: jobs and their tasks, from submission to the last picture. Every change is one transaction.

A task is `waiting`, `running` under a worker, `done`, `failed` or `cancelled`. Only the worker that holds a task can finish
it, so that a picture is made at most once, whoever comes back late.
"""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from unclip.serve.database import Database
from unclip.serve.errors import NotFound, QueueFull, ServerError
from unclip.serve.plan import shares_work
from unclip.serve.queue_records import Drawn, NewJob, Note, Task
from unclip.serve.tables import (
    collections,
    events,
    jobs,
    live,
    members,
    meta,
    parents,
    pictures,
    tasks,
    workers,
)

OPEN = ("waiting", "running")
"""States of tasks that are not over."""
OPEN_JOBS = ("waiting", "running", "paused")
"""States of jobs that are not over."""

NOT_DRAWN = "the picture could not be drawn"
NO_MEMORY = "the device has too little memory for this picture"
LOST = "its worker ended"
"""Beginnings of the messages of jobs that failed through no fault of their request."""


class Queue:
    """The queue of one database."""

    def __init__(self, database: Database, *, max_queue: int = 1000):
        self.database, self.max_queue = database, max_queue

    # Clients

    def submit(self, job: NewJob) -> str:
        """Id of the queued job. Raises `QueueFull`, and `NotFound` for an unknown collection."""
        id, now = str(uuid.uuid4()), time.time()
        with self.database.write() as connection:
            waiting = _count(connection, tasks.c.state == "waiting")
            if waiting + len(job.alone) > self.max_queue:
                raise QueueFull(waiting, waiting * (seconds_per_picture(connection) or 1.0) / 4)
            known = select(collections.c.id).where(collections.c.id == job.collection)
            if job.collection is not None and connection.execute(known).first() is None:
                raise NotFound("collection", job.collection)
            last = connection.execute(select(func.max(jobs.c.position))).scalar() or 0.0
            connection.execute(
                insert(jobs).values(
                    id=id,
                    kind=job.kind,
                    request=json.dumps(job.request),
                    sources=json.dumps([list(one) for one in job.sources]),
                    model=job.model,
                    n=len(job.alone),
                    priority=job.priority,
                    position=last + 1.0,
                    state="waiting",
                    previews=job.previews,
                    collection=job.collection,
                    client=job.client,
                    created=now,
                )
            )
            rows = [
                {
                    "id": str(uuid.uuid4()),
                    "job": id,
                    "index": index,
                    "request": json.dumps(request),
                    "group": group,
                    "state": "waiting",
                }
                for index, (request, group) in enumerate(zip(job.alone, job.groups))
            ]
            connection.execute(insert(tasks), rows)
            emit(connection, "job", id)
        return id

    def cancel(self, job: str, *, forget: bool = False) -> None:
        """End a job; its finished pictures stay. Raises `NotFound`."""
        with self.database.write() as connection:
            _job(connection, job)
            stopped = _cancel_tasks(connection, (tasks.c.job == job))
            if forget:
                connection.execute(update(jobs).where(jobs.c.id == job).values(forgotten=True))
            settle(connection, job, cancelled=bool(stopped))
            if forget:
                emit(connection, "deleted", job)

    def cancel_picture(self, job: str, index: int) -> None:
        """End one picture of a job. Raises `NotFound`."""
        with self.database.write() as connection:
            _job(connection, job)
            one = (tasks.c.job == job) & (tasks.c.index == index)
            if not _count(connection, one):
                raise NotFound("picture of this job", str(index))
            _cancel_tasks(connection, one)
            settle(connection, job)

    def pause(self, job: str, paused: bool) -> None:
        """Hold back a job's pictures that are not begun, or let them go on. Raises `NotFound`."""
        with self.database.write() as connection:
            _job(connection, job)
            connection.execute(update(jobs).where(jobs.c.id == job).values(paused=paused))
            settle(connection, job)

    def retry(self, job: str) -> None:
        """Queue the failed and cancelled pictures of a job again, at its old place. Raises `NotFound`."""
        with self.database.write() as connection:
            _job(connection, job)
            again = (tasks.c.job == job) & tasks.c.state.in_(("failed", "cancelled"))
            if not _count(connection, again):
                raise ServerError(
                    409, "no picture of this job has failed or was cancelled", code="nothing_to_retry"
                )
            connection.execute(
                update(tasks).where(again).values(state="waiting", owner=None, attempts=0, error=None)
            )
            connection.execute(
                update(jobs).where(jobs.c.id == job).values(ended=None, error=None, paused=False)
            )
            settle(connection, job)

    def move(self, job: str, *, priority: int | None = None, before: str | None = None) -> None:
        """Give a job another priority, or the place before another job. Raises `NotFound`."""
        with self.database.write() as connection:
            _job(connection, job)
            values: dict[str, Any] = {} if priority is None else {"priority": priority}
            if before is not None:
                after = _job(connection, before)
                ahead = select(func.max(jobs.c.position)).where(
                    (jobs.c.position < after.position) & (jobs.c.id != job) & jobs.c.state.in_(OPEN_JOBS)
                )
                low = connection.execute(ahead).scalar()
                low = after.position - 2.0 if low is None else low
                values |= {"position": (low + after.position) / 2, "priority": after.priority}
            if values:
                connection.execute(update(jobs).where(jobs.c.id == job).values(**values))
                emit(connection, "job", job)
                emit(connection, "queue")

    @property
    def paused(self) -> bool:
        """Whether no picture is begun."""
        with self.database.read() as connection:
            return is_paused(connection)

    def pause_all(self, paused: bool) -> None:
        """Begin no more pictures, or go on."""
        with self.database.write() as connection:
            connection.execute(delete(meta).where(meta.c.key == "paused"))
            if paused:
                connection.execute(insert(meta).values(key="paused", value="1"))
            emit(connection, "queue")

    # Workers

    def open_pictures(self) -> int:
        """Number of pictures that wait or are drawn."""
        with self.database.read() as connection:
            return _count(connection, tasks.c.state.in_(OPEN))

    def claim(self, worker: str, models: Sequence[str], batch: int = 1) -> list[Task]:
        """Tasks that the worker now holds, to be drawn together: the first waiting one, and those that share its work."""
        ready = (tasks.c.state == "waiting") & jobs.c.paused.is_(False) & jobs.c.model.in_(models)
        columns = (
            tasks.c.id, tasks.c.job, tasks.c.index.label("number"), tasks.c.request, tasks.c.group, tasks.c.attempts,
            jobs.c.kind, jobs.c.model, jobs.c.sources, jobs.c.previews,
        )  # fmt: skip
        query = (
            select(*columns)
            .join(jobs, jobs.c.id == tasks.c.job)
            .where(ready)
            .order_by(jobs.c.priority.desc(), jobs.c.position, tasks.c.index)
        )
        with self.database.read() as connection:
            if is_paused(connection) or connection.execute(query.limit(1)).first() is None:
                return []
        with self.database.write() as connection:
            here = connection.execute(select(workers.c.id).where(workers.c.id == worker)).first()
            first = connection.execute(query.limit(1)).first()
            if here is None or first is None or is_paused(connection):
                return []
            rows = [first]
            if shares_work(first.kind):
                rows = connection.execute(query.where(tasks.c.job == first.job)).all()
            elif batch > 1 and first.group:
                rows = connection.execute(query.where(tasks.c.group == first.group).limit(batch)).all()
            held = [row.id for row in rows]
            connection.execute(
                update(tasks)
                .where(tasks.c.id.in_(held))
                .values(state="running", owner=worker, attempts=tasks.c.attempts + 1)
            )
            now = time.time()
            for job in dict.fromkeys(row.job for row in rows):
                fresh = (jobs.c.id == job) & jobs.c.started.is_(None)
                connection.execute(update(jobs).where(fresh).values(started=now))
                settle(connection, job)
        return [
            Task(
                id=row.id,
                job=row.job,
                index=row.number,
                kind=row.kind,
                model=row.model,
                request=json.loads(row.request),
                sources=[(role, id) for role, id in json.loads(row.sources)],
                previews=row.previews,
                attempts=row.attempts + 1,
            )
            for row in rows
        ]

    def held(self, worker: str, ids: Sequence[str]) -> set[str]:
        """Those of some tasks that the worker still holds."""
        with self.database.read() as connection:
            return _held(connection, worker, ids)

    def progress(self, worker: str, notes: Sequence[Note]) -> set[str]:
        """Tasks of the notes that the worker still holds, whose progress is recorded; the others are to be given up."""
        with self.database.note() as connection:
            mine = _held(connection, worker, [note.task for note in notes])
            for note in notes:
                if note.task in mine:
                    _record(connection, note)
        return mine

    def finish(self, task: Task, worker: str, drawn: Drawn) -> bool:
        """Record a picture whose file is stored; False if the worker no longer holds the task."""
        with self.database.write() as connection:
            mine = (tasks.c.id == task.id) & (tasks.c.owner == worker) & (tasks.c.state == "running")
            if not connection.execute(update(tasks).where(mine).values(state="done", owner=None)).rowcount:
                return False
            words = " ".join(filter(None, [drawn.prompt, task.kind, task.model])).lower()
            connection.execute(
                insert(pictures).values(
                    id=task.id,
                    job=task.job,
                    index=task.index,
                    kind=task.kind,
                    model=task.model,
                    width=drawn.width,
                    height=drawn.height,
                    seed=drawn.seed,
                    prompt=drawn.prompt,
                    words=words,
                    provenance=json.dumps(drawn.provenance),
                    warnings=json.dumps(list(drawn.warnings)),
                    bytes=drawn.size,
                    seconds=drawn.seconds,
                    created=time.time(),
                )
            )
            for order, (role, source) in enumerate(task.sources):
                connection.execute(
                    insert(parents).values(picture=task.id, order=order, role=role, source=source)
                )
            collection = connection.execute(select(jobs.c.collection).where(jobs.c.id == task.job)).scalar()
            if collection is not None:
                connection.execute(
                    insert(members).values(collection=collection, picture=task.id, added=time.time())
                )
            connection.execute(delete(live).where(live.c.task == task.id))
            emit(connection, "picture", task.job, task.id)
            settle(connection, task.job, going_on=True)
        return True

    def fail(self, ids: Sequence[str], worker: str, message: str) -> None:
        """Record that tasks which the worker holds cannot be drawn."""
        with self.database.write() as connection:
            mine = tasks.c.id.in_(ids) & (tasks.c.owner == worker) & (tasks.c.state == "running")
            found = connection.execute(select(tasks.c.job).where(mine).distinct()).scalars().all()
            connection.execute(update(tasks).where(mine).values(state="failed", owner=None, error=message))
            connection.execute(delete(live).where(live.c.task.in_(ids)))
            for job in found:
                settle(connection, job, error=message, going_on=True)

    def release(self, ids: Sequence[str], worker: str, *, max_attempts: int) -> None:
        """Give tasks back that the worker could not draw now; they fail where that happened `max_attempts` times."""
        with self.database.write() as connection:
            give_back(connection, worker, only=ids, max_attempts=max_attempts)


def give_back(
    connection: Connection,
    worker: str,
    *,
    only: Sequence[str] | None = None,
    counted: bool = True,
    max_attempts: int | None = None,
) -> None:
    """Make the tasks that a worker holds wait again, or `only` some; their attempt is `counted` or not.

    Tasks with `max_attempts` attempts fail.
    """
    mine = (tasks.c.owner == worker) & (tasks.c.state == "running")
    if only is not None:
        mine &= tasks.c.id.in_(only)
    rows = connection.execute(select(tasks.c.id, tasks.c.job, tasks.c.attempts).where(mine)).all()
    lost = [row.id for row in rows if max_attempts is not None and row.attempts >= max_attempts]
    error = f"{LOST} {max_attempts} times while drawing it"
    attempts = tasks.c.attempts if counted else tasks.c.attempts - 1
    connection.execute(delete(live).where(live.c.task.in_([row.id for row in rows])))
    connection.execute(update(tasks).where(mine).values(state="waiting", owner=None, attempts=attempts))
    if lost:
        connection.execute(update(tasks).where(tasks.c.id.in_(lost)).values(state="failed", error=error))
    for job in dict.fromkeys(row.job for row in rows):
        settle(
            connection, job, error=error if any(row.id in lost and row.job == job for row in rows) else None
        )


def settle(
    connection: Connection,
    job: str,
    *,
    cancelled: bool = False,
    error: str | None = None,
    going_on: bool = False,
) -> None:
    """Bring a job's state in line with its tasks, and tell its followers.

    `going_on` keeps a job between two of its pictures running.
    """
    query = select(tasks.c.state, func.count()).where(tasks.c.job == job).group_by(tasks.c.state)
    counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(query)}
    row = _job(connection, job)
    if counts.get("running") or counts.get("waiting"):
        resting = "running" if going_on and row.state == "running" else "waiting"
        state = "paused" if row.paused else "running" if counts.get("running") else resting
    elif counts.get("failed"):
        state = "failed"
    elif cancelled or not counts.get("done") or row.state == "cancelled":
        state = "cancelled"
    else:
        state = "done"
    over = state not in OPEN_JOBS
    values: dict[str, Any] = {"state": state}
    if error is not None:
        values["error"] = error
    if over and row.ended is None:
        values["ended"] = time.time()
    if state != row.state or error is not None or "ended" in values:
        connection.execute(update(jobs).where(jobs.c.id == job).values(**values))
        emit(connection, "job", job)
        if "ended" in values:
            emit(connection, "end", job)


def emit(connection: Connection, type: str, job: str | None = None, picture: str | None = None) -> None:
    """Record an event for whoever follows."""
    connection.execute(insert(events).values(type=type, job=job, picture=picture, created=time.time()))


def is_paused(connection: Connection) -> bool:
    """Whether the queue is paused."""
    return connection.execute(select(meta.c.value).where(meta.c.key == "paused")).first() is not None


def seconds_per_picture(
    connection: Connection, model: str | None = None, kind: str | None = None
) -> float | None:
    """Mean duration of the last pictures, of a model and kind if given; None where there are none."""
    query = select(pictures.c.seconds)
    if model is not None:
        query = query.where((pictures.c.model == model) & (pictures.c.kind == kind))
    found = connection.execute(query.order_by(pictures.c.created.desc()).limit(10)).scalars().all()
    return sum(found) / len(found) if found else None


def _job(connection: Connection, job: str) -> Any:
    row = connection.execute(select(jobs).where(jobs.c.id == job)).first()
    if row is None:
        raise NotFound("job", job)
    return row


def _count(connection: Connection, condition: Any) -> int:
    return connection.execute(select(func.count()).select_from(tasks).where(condition)).scalar_one()


def _cancel_tasks(connection: Connection, which: Any) -> int:
    stopped = connection.execute(
        update(tasks).where(which & tasks.c.state.in_(OPEN)).values(state="cancelled", owner=None)
    ).rowcount
    gone = select(tasks.c.id).where(which & (tasks.c.state == "cancelled"))
    connection.execute(delete(live).where(live.c.task.in_(gone)))
    return stopped


def _held(connection: Connection, worker: str, ids: Sequence[str]) -> set[str]:
    mine = tasks.c.id.in_(ids) & (tasks.c.owner == worker) & (tasks.c.state == "running")
    return set(connection.execute(select(tasks.c.id).where(mine)).scalars())


def _record(connection: Connection, note: Note) -> None:
    values: dict[str, Any] = {
        "stage": note.stage,
        "step": note.step,
        "steps": note.steps,
        "fraction": note.fraction,
    }
    seen = note.preview is not None
    if seen:
        values |= {"preview": note.preview, "width": note.size[0], "height": note.size[1]}
    changed = {**values, "version": live.c.version + 1}
    if seen:
        changed["preview_version"] = live.c.preview_version + 1
    if not connection.execute(update(live).where(live.c.task == note.task).values(**changed)).rowcount:
        connection.execute(
            insert(live).values(
                task=note.task, job=note.job, index=note.index, version=1, preview_version=int(seen), **values
            )
        )
