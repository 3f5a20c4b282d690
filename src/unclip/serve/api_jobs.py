"""Our own API: jobs, their events, and the queue."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from unclip.config import Param, shown
from unclip.errors import RequestError
from unclip.generate.operations import read_request
from unclip.serve.errors import NotFound
from unclip.serve.events import queue_view
from unclip.serve.http import Call, error_response, json_route, service_of
from unclip.serve.plan import with_n
from unclip.serve.service import read_sources
from unclip.serve.shapes import Job, Jobs, QueueState
from unclip.serve.states import OPEN_JOBS
from unclip.serve.tables import jobs
from unclip.serve.views import job_views

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
STATES = (*OPEN_JOBS, "done", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class JobBody:
    """A job to be queued: a request, and the ids of the pictures that it takes."""

    request: dict[str, Any]
    sources: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    model: str | None = None
    n: Annotated[int | None, Param("number of pictures, in place of the request's", ge=1, le=10_000)] = None
    priority: Annotated[int, Param("jobs of a higher priority come first", ge=-100, le=100)] = 0
    previews: Annotated[bool, Param("whether pictures are shown while they are drawn")] = True
    collection: Annotated[str | None, Param("id of the collection that the pictures join")] = None


@dataclass(frozen=True, kw_only=True)
class JobChange:
    """A change of a job's place in the queue."""

    priority: Annotated[int | None, Param("jobs of a higher priority come first", ge=-100, le=100)] = None
    before: Annotated[str | None, Param("id of the job before which this one is drawn")] = None


def id_of(call: Call, name: str = "id", what: str = "job") -> str:
    """An id of the path. Raises `NotFound` for what is none."""
    text = str(call.path[name])
    if not ID.fullmatch(text):
        raise NotFound(what, text)
    return text


def create(call: Call) -> Response:
    body = call.json(JobBody)
    request = with_n(read_request(body.request), body.n)
    id = call.service.submit(
        request,
        read_sources(request, body.sources),
        model=body.model,
        priority=body.priority,
        previews=body.previews,
        collection=body.collection,
    )
    return JSONResponse(call.service.job(id), status_code=201, headers={"Location": f"/api/jobs/{id}"})


def listing(call: Call) -> Jobs:
    limit = call.whole("limit", 50, 1, 500)
    query = select(jobs).where(jobs.c.forgotten.is_(False))
    wanted = [name for name in call.query.get("state", "").split(",") if name]
    if unknown := sorted(set(wanted) - {*STATES, "open"}):
        raise RequestError(f"state is {shown(unknown[0])}: choose from open, {', '.join(STATES)}")
    if wanted:
        names = {name for one in wanted for name in (OPEN_JOBS if one == "open" else (one,))}
        query = query.where(jobs.c.state.in_(names))
    if cursor := call.query.get("cursor"):
        created, id = read_cursor(cursor)
        query = query.where((jobs.c.created < created) | ((jobs.c.created == created) & (jobs.c.id < id)))
    query = query.order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(limit + 1)
    with call.service.database.read() as connection:
        rows = connection.execute(query).all()
        items = job_views(connection, rows[:limit])
    last = rows[limit - 1] if len(rows) > limit else None
    return {"items": items, "next": None if last is None else f"{last.created!r}_{last.id}"}


def read_cursor(text: str) -> tuple[float, str]:
    """Time and id of a cursor. Raises `RequestError`."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)_([0-9a-f-]{36})", text)
    if found is None:
        raise RequestError(f"cursor is {shown(text)}: give the `next` of the page before")
    return float(found[1]), found[2]


def show(call: Call) -> Job:
    return call.service.job(id_of(call))


def forget(call: Call) -> None:
    call.service.queue.cancel(id_of(call), forget=True)


def change(call: Call) -> Job:
    body, id = call.json(JobChange), id_of(call)
    call.service.queue.move(id, priority=body.priority, before=body.before)
    return call.service.job(id)


def act(call: Call) -> Job:
    id, queue = id_of(call), call.service.queue
    actions = {
        "cancel": lambda: queue.cancel(id),
        "pause": lambda: queue.pause(id, True),
        "resume": lambda: queue.pause(id, False),
        "retry": lambda: queue.retry(id),
    }
    if call.path["action"] not in actions:
        raise NotFound("action", str(call.path["action"]))
    actions[call.path["action"]]()
    return call.service.job(id)


def cancel_picture(call: Call) -> Job:
    id = id_of(call)
    call.service.queue.cancel_picture(id, min(int(call.path["index"]), 1 << 30))
    return call.service.job(id)


def show_queue(call: Call) -> QueueState:
    with call.service.database.read() as connection:
        return queue_view(connection)


def hold_queue(call: Call) -> QueueState:
    if call.path["action"] not in ("pause", "resume"):
        raise NotFound("action", str(call.path["action"]))
    call.service.queue.pause_all(call.path["action"] == "pause")
    return show_queue(call)


async def job_events(request: Request) -> Response:
    """Events of one job."""
    from starlette.concurrency import run_in_threadpool

    service = service_of(request)
    try:
        id = str(request.path_params["id"])
        if not ID.fullmatch(id):
            raise NotFound("job", id)
        await run_in_threadpool(service.check_job, id)
        return event_stream(request, service.hub.stream(id, _last_event(request)))
    except Exception as error:
        return error_response(request, error)


async def all_events(request: Request) -> Response:
    """Events of all jobs."""
    try:
        return event_stream(request, service_of(request).hub.stream(None, _last_event(request)))
    except Exception as error:
        return error_response(request, error)


def event_stream(request: Request, source: Any) -> Response:
    """A response that stays open and sends events."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(source, media_type="text/event-stream", headers=headers)


def _last_event(request: Request) -> int | None:
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise RequestError(f"Last-Event-ID is {shown(text)}: give the id of an event")
    return int(text)


def routes() -> list[BaseRoute]:
    """Routes of jobs and queue."""
    return [
        json_route("/api/jobs", GET=listing, POST=create),
        json_route("/api/jobs/{id}", GET=show, DELETE=forget, PATCH=change),
        Route("/api/jobs/{id}/events", job_events),
        json_route("/api/jobs/{id}/{action}", POST=act),
        json_route("/api/jobs/{id}/pictures/{index:int}/cancel", POST=cancel_picture),
        Route("/api/events", all_events),
        json_route("/api/queue", GET=show_queue),
        json_route("/api/queue/{action}", POST=hold_queue),
    ]
