"""States of jobs and tasks: what follows when one changes, within the transaction that changes it."""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from unclip.serve.errors import NotFound
from unclip.serve.queue_records import Note
from unclip.serve.tables import events, followed, jobs, live, meta, pictures, tasks

OPEN = ("waiting", "running")
"""States of tasks that are not over."""
OPEN_JOBS = ("waiting", "running", "paused")
"""States of jobs that are not over."""

NOT_DRAWN = "the picture could not be drawn"
NO_MEMORY = "the device has too little memory for this picture"
LOST = "its worker ended"
"""Beginnings of the messages of jobs that failed through no fault of their request."""


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
    row = job_row(connection, job)
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
            connection.execute(delete(followed).where(followed.c.job == job))
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


def job_row(connection: Connection, job: str) -> Any:
    """Row of a job. Raises `NotFound`."""
    row = connection.execute(select(jobs).where(jobs.c.id == job)).first()
    if row is None:
        raise NotFound("job", job)
    return row


def count_tasks(connection: Connection, condition: Any) -> int:
    """Number of tasks with a condition."""
    return connection.execute(select(func.count()).select_from(tasks).where(condition)).scalar_one()


def cancel_tasks(connection: Connection, which: Any) -> int:
    """Number of open tasks of some that are cancelled now."""
    stopped = connection.execute(
        update(tasks).where(which & tasks.c.state.in_(OPEN)).values(state="cancelled", owner=None)
    ).rowcount
    gone = select(tasks.c.id).where(which & (tasks.c.state == "cancelled"))
    connection.execute(delete(live).where(live.c.task.in_(gone)))
    return stopped


def held_tasks(connection: Connection, worker: str, ids: Sequence[str]) -> set[str]:
    """Those of some tasks that a worker holds."""
    mine = tasks.c.id.in_(ids) & (tasks.c.owner == worker) & (tasks.c.state == "running")
    return set(connection.execute(select(tasks.c.id).where(mine)).scalars())


def record_note(connection: Connection, note: Note) -> None:
    """Record the progress of a task."""
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
