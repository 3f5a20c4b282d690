"""The queue: jobs and their tasks, from submission to the last picture. Every change is one transaction.

A task is `waiting`, `running` under a worker, `done`, `failed` or `cancelled`. Only the worker that holds a task can finish
it, so that a picture is made at most once, whoever comes back late.
"""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, exists, func, insert, select, update

from unclip.serve.database import Database
from unclip.serve.errors import NotFound, QueueFull, ServerError
from unclip.serve.plan import shares_work
from unclip.serve.queue_records import Drawn, NewJob, Note, Task
from unclip.serve.states import (
    OPEN,
    OPEN_JOBS,
    cancel_tasks,
    count_tasks,
    emit,
    give_back,
    held_tasks,
    is_paused,
    job_row,
    record_note,
    seconds_per_picture,
    settle,
)
from unclip.serve.tables import (
    collections,
    followed,
    jobs,
    live,
    members,
    meta,
    parents,
    pictures,
    tasks,
    workers,
)


class Queue:
    """The queue of one database."""

    def __init__(self, database: Database, *, max_queue: int = 1000):
        self.database, self.max_queue = database, max_queue

    # Clients

    def submit(self, job: NewJob) -> str:
        """Id of the queued job. Raises `QueueFull`, and `NotFound` for an unknown collection."""
        id, now = str(uuid.uuid4()), time.time()
        with self.database.write() as connection:
            waiting = count_tasks(connection, tasks.c.state == "waiting")
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
            job_row(connection, job)
            stopped = cancel_tasks(connection, (tasks.c.job == job))
            if forget:
                connection.execute(update(jobs).where(jobs.c.id == job).values(forgotten=True))
            settle(connection, job, cancelled=bool(stopped))
            if forget:
                emit(connection, "deleted", job)

    def cancel_picture(self, job: str, index: int) -> None:
        """End one picture of a job. Raises `NotFound`."""
        with self.database.write() as connection:
            job_row(connection, job)
            one = (tasks.c.job == job) & (tasks.c.index == index)
            if not count_tasks(connection, one):
                raise NotFound("picture of this job", str(index))
            cancel_tasks(connection, one)
            settle(connection, job)

    def pause(self, job: str, paused: bool) -> None:
        """Hold back a job's pictures that are not begun, or let them go on. Raises `NotFound`."""
        with self.database.write() as connection:
            job_row(connection, job)
            connection.execute(update(jobs).where(jobs.c.id == job).values(paused=paused))
            settle(connection, job)

    def retry(self, job: str) -> None:
        """Queue the failed and cancelled pictures of a job again, at its old place. Raises `NotFound`."""
        with self.database.write() as connection:
            job_row(connection, job)
            again = (tasks.c.job == job) & tasks.c.state.in_(("failed", "cancelled"))
            if not count_tasks(connection, again):
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
            job_row(connection, job)
            values: dict[str, Any] = {} if priority is None else {"priority": priority}
            if before is not None:
                after = job_row(connection, before)
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
            return count_tasks(connection, tasks.c.state.in_(OPEN))

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
            .where(ready, ~exists().where(meta.c.key == "paused"), exists().where(workers.c.id == worker))
            .order_by(jobs.c.priority.desc(), jobs.c.position, tasks.c.index)
        )
        with self.database.read() as connection:
            if connection.execute(query.limit(1)).first() is None:
                return []
        # A claim that is lost with the machine's power is lost with its worker.
        with self.database.write(durable=False) as connection:
            first = connection.execute(query.limit(1)).first()
            if first is None:
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
            return held_tasks(connection, worker, ids)

    def progress(self, worker: str, notes: Sequence[Note]) -> dict[str, bool]:
        """Tasks of the notes that the worker still holds, whose progress is recorded, and whether somebody watches them.

        The others are to be given up.
        """
        with self.database.note() as connection:
            mine = held_tasks(connection, worker, [note.task for note in notes])
            for note in notes:
                if note.task in mine:
                    record_note(connection, note)
            jobs_of = {note.task: note.job for note in notes if note.task in mine}
            query = select(followed.c.job).where(followed.c.job.in_(set(jobs_of.values())))
            watched = set(connection.execute(query).scalars())
        return {task: job in watched for task, job in jobs_of.items()}

    def follow(self, job: str) -> None:
        """Record that somebody watches an open job, so that its pictures are shown while they are drawn."""
        query = select(jobs.c.id).where((jobs.c.id == job) & jobs.c.previews & jobs.c.state.in_(OPEN_JOBS))
        known = select(followed.c.job).where(followed.c.job == job)
        with self.database.read() as connection:
            if connection.execute(query).first() is None or connection.execute(known).first() is not None:
                return
        with self.database.note() as connection:
            if connection.execute(known).first() is None:
                connection.execute(insert(followed).values(job=job))

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
