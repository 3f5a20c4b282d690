"""Jobs and pictures as JSON."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select

from unclip.serve.shapes import Job, Picture
from unclip.serve.states import OPEN_JOBS, seconds_per_picture
from unclip.serve.tables import jobs, members, parents, pictures, tasks, workers


def time_text(seconds: float | None) -> str | None:
    """Time in ISO 8601, UTC, with milliseconds; None for None."""
    return None if seconds is None else at(seconds)


def at(seconds: float) -> str:
    """Time in ISO 8601, UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_views(connection: Connection, rows: Sequence[Any]) -> list[Job]:
    """Jobs of rows of `jobs`, with their pictures, in order."""
    ids = [row.id for row in rows]
    states: dict[str, list[Any]] = {id: [] for id in ids}
    query = select(tasks.c.job, tasks.c.index, tasks.c.state, tasks.c.error, tasks.c.request)
    for task in connection.execute(query.where(tasks.c.job.in_(ids)).order_by(tasks.c.index)):
        states[task.job].append(task)
    drawn: dict[tuple[str, int], Picture] = {}
    found = connection.execute(select(pictures).where(pictures.c.job.in_(ids))).all()
    for view in picture_views(connection, found):
        drawn[view["job"], view["index"]] = view
    places = _places(connection) if any(row.state in OPEN_JOBS for row in rows) else {}
    return [_job(row, states[row.id], drawn, places) for row in rows]


def job_view(connection: Connection, id: str) -> Job | None:
    """A job; None if there is none with this id."""
    row = connection.execute(select(jobs).where(jobs.c.id == id)).first()
    return None if row is None else job_views(connection, [row])[0]


def _job(row: Any, states: list[Any], drawn: Mapping[tuple[str, int], Any], places: Any) -> Job:
    made = [drawn.get((row.id, task.index)) for task in states]
    place, seconds = places.get(row.id, (None, None))
    return {
        "id": row.id,
        "state": row.state,
        "kind": row.kind,
        "request": json.loads(row.request),
        "sources": [{"role": role, "id": id} for role, id in json.loads(row.sources)],
        "model": row.model,
        "n": row.n,
        "done": sum(task.state == "done" for task in states),
        "states": [task.state for task in states],
        "seeds": [json.loads(task.request).get("seed") for task in states],
        "errors": [task.error for task in states],
        "pictures": made,
        "place": place,
        "eta_seconds": seconds,
        "priority": row.priority,
        "previews": row.previews,
        "collection": row.collection,
        "created": at(row.created),
        "started": time_text(row.started),
        "ended": time_text(row.ended),
        "error": row.error,
        "warnings": list(dict.fromkeys(text for one in made if one for text in one["warnings"])),
    }


def _places(connection: Connection) -> dict[str, tuple[int | None, float | None]]:
    """Place in the queue (None for a job that has begun) and seconds to its end, of every open job."""
    query = (
        select(jobs.c.id, jobs.c.kind, jobs.c.model, jobs.c.state, func.count())
        .join(tasks, tasks.c.job == jobs.c.id)
        .where(jobs.c.state.in_(("waiting", "running")) & tasks.c.state.in_(("waiting", "running")))
        .group_by(jobs.c.id, jobs.c.kind, jobs.c.model, jobs.c.state, jobs.c.priority, jobs.c.position)
        .order_by(jobs.c.priority.desc(), jobs.c.position)
    )
    hands = max(1, connection.execute(select(func.count()).select_from(workers)).scalar_one())
    pace: dict[tuple[str, str], float | None] = {}
    places: dict[str, tuple[int | None, float | None]] = {}
    place, ahead = 0, 0.0
    for id, kind, model, state, left in connection.execute(query).all():
        if (model, kind) not in pace:
            pace[model, kind] = seconds_per_picture(connection, model, kind)
        each = pace[model, kind]
        ahead += left * (each or 0.0) / hands
        place += state == "waiting"
        places[id] = (place if state == "waiting" else None, None if each is None else round(ahead, 1))
    return places


def picture_views(connection: Connection, rows: Sequence[Any]) -> list[Picture]:
    """Pictures of rows of `pictures`, in order."""
    if not rows:
        return []
    ids = [row.id for row in rows]
    made_from: dict[str, list[Any]] = {id: [] for id in ids}
    query = select(parents).where(parents.c.picture.in_(ids)).order_by(parents.c.order)
    given = connection.execute(query).all()
    drawn = set(
        connection.execute(
            select(pictures.c.id).where(pictures.c.id.in_([one.source for one in given]))
        ).scalars()
    )
    for one in given:
        where = "picture" if one.source in drawn else "upload"
        made_from[one.picture].append({"role": one.role, where: one.source})
    inside: dict[str, list[str]] = {id: [] for id in ids}
    for one in connection.execute(select(members).where(members.c.picture.in_(ids))):
        inside[one.picture].append(one.collection)
    return [_picture(row, made_from[row.id], inside[row.id]) for row in rows]


def picture_view(connection: Connection, id: str) -> Picture | None:
    """A picture; None if there is none with this id."""
    row = connection.execute(select(pictures).where(pictures.c.id == id)).first()
    return None if row is None else picture_views(connection, [row])[0]


def _picture(row: Any, sources: list[Any], inside: list[str]) -> Picture:
    provenance = json.loads(row.provenance)
    return {
        "id": row.id,
        "job": row.job,
        "index": row.index,
        "kind": row.kind,
        "width": row.width,
        "height": row.height,
        "bytes": row.bytes,
        "seed": row.seed,
        "prompt": row.prompt,
        "model": row.model,
        "request": provenance.get("request"),
        "provenance": provenance,
        "sources": sources,
        "created": at(row.created),
        "seconds": round(row.seconds, 3),
        "starred": row.starred,
        "title": row.title,
        "collections": inside,
        "deleted": time_text(row.deleted),
        "url": f"/api/pictures/{row.id}/file",
        "thumbnail_url": f"/api/pictures/{row.id}/thumbnail",
        "warnings": json.loads(row.warnings),
    }
