"""OpenAPI document of our own API, made of the requests' dataclasses, the bodies' and the answers' types."""

import importlib.metadata
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, Union

from starlette.routing import BaseRoute

from unclip.generate.operations import REQUESTS
from unclip.serve import shapes
from unclip.serve.api_collections import CanvasBody, CollectionBody
from unclip.serve.api_compose import ComposeBody
from unclip.serve.api_jobs import JobBody, JobChange
from unclip.serve.api_library import PictureChange, Selection
from unclip.serve.api_reuse import CaptionsBody
from unclip.serve.http import Call, json_route

_REFERENCE = "#/components/schemas/{model}"
_PICTURE_FILE = {"schema": {"type": "string", "format": "binary"}}


class Operation(NamedTuple):
    """An operation: what it does, its body, what it answers, and parameters of its query."""

    method: str
    path: str
    summary: str
    answer: Any = None
    body: Any = None
    status: int = 200
    query: tuple[tuple[str, dict[str, Any]], ...] = ()


_TEXT, _NUMBER, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_PAGE = (("cursor", _TEXT), ("limit", {**_NUMBER, "minimum": 1, "maximum": 500}))
_FILTERS = (
    ("query", _TEXT),
    ("kind", _TEXT),
    ("model", _TEXT),
    ("size", {**_TEXT, "pattern": r"^\d{1,5}(x\d{1,5})?$"}),
    ("starred", _FLAG),
    ("collection", _TEXT),
    ("deleted", _FLAG),
)
_FREE = dict[str, Any]

OPERATIONS: tuple[Operation, ...] = (
    Operation("get", "/api/config", "Models, their operations, and limits", _FREE),
    Operation("get", "/api/schema", "JSON Schema of every kind of request", _FREE),
    Operation("post", "/api/uploads", "Give a picture", shapes.Upload, bytes, 201),
    Operation("get", "/api/uploads/{id}/file", "File of a given picture", "image/png"),
    Operation("get", "/api/jobs", "Jobs, the latest first", shapes.Jobs, query=(("state", _TEXT), *_PAGE)),
    Operation("post", "/api/jobs", "Queue a job", shapes.Job, JobBody, 201),
    Operation("get", "/api/jobs/{id}", "A job", shapes.Job),
    Operation("patch", "/api/jobs/{id}", "Move a job in the queue", shapes.Job, JobChange),
    Operation("delete", "/api/jobs/{id}", "End a job and forget it", status=204),
    *(
        Operation("post", f"/api/jobs/{{id}}/{action}", f"{action.title()} a job", shapes.Job)
        for action in ("cancel", "pause", "resume", "retry")
    ),
    Operation("post", "/api/jobs/{id}/pictures/{index}/cancel", "Cancel one picture of a job", shapes.Job),
    Operation("get", "/api/jobs/{id}/events", "Events of a job", "text/event-stream"),
    Operation("get", "/api/events", "Events of all jobs", "text/event-stream"),
    Operation("get", "/api/queue", "The queue and its workers", shapes.QueueState),
    Operation("post", "/api/queue/pause", "Begin no more pictures", shapes.QueueState),
    Operation("post", "/api/queue/resume", "Go on", shapes.QueueState),
    Operation(
        "get", "/api/pictures", "Pictures, the latest first", shapes.Pictures, query=(*_FILTERS, *_PAGE)
    ),
    Operation("get", "/api/pictures/{id}", "A picture", shapes.Picture),
    Operation("patch", "/api/pictures/{id}", "Star or name a picture", shapes.Picture, PictureChange),
    Operation("delete", "/api/pictures/{id}", "Delete a picture; it can be restored", status=204),
    Operation("post", "/api/pictures/{id}/restore", "Undo a delete", shapes.Picture),
    Operation("get", "/api/pictures/{id}/file", "File with provenance", "image/png"),
    Operation(
        "get",
        "/api/pictures/{id}/thumbnail",
        "Small form of a picture",
        "image/webp",
        query=(("side", {**_NUMBER, "minimum": 16, "maximum": 1024}),),
    ),
    Operation("get", "/api/pictures/{id}/lineage", "Ancestors and children", shapes.Lineage),
    Operation("get", "/api/pictures/{id}/commands", "Commands that make it again", shapes.Commands),
    Operation("post", "/api/pictures/zip", "Pictures as an archive", "application/zip", Selection),
    Operation("post", "/api/pictures/captions", "Which captions fit pictures", _FREE, CaptionsBody),
    Operation("post", "/api/read", "What a file records about how it was made", _FREE, bytes),
    Operation("get", "/api/collections", "All collections", shapes.Collections),
    Operation("post", "/api/collections", "Make a collection", shapes.Collection, CollectionBody, 201),
    Operation("get", "/api/collections/{id}", "A collection", shapes.Collection),
    Operation("patch", "/api/collections/{id}", "Rename a collection", shapes.Collection, CollectionBody),
    Operation("delete", "/api/collections/{id}", "Remove a collection; its pictures stay", status=204),
    Operation("put", "/api/collections/{id}/pictures/{picture}", "Add a picture", status=204),
    Operation("delete", "/api/collections/{id}/pictures/{picture}", "Take a picture out", status=204),
    Operation("post", "/api/compose", "Pieces of a canvas as one picture", "image/png", ComposeBody),
    Operation("get", "/api/canvases", "All canvases", shapes.Canvases),
    Operation("post", "/api/canvases", "Make a canvas", shapes.Canvas, CanvasBody, 201),
    Operation("get", "/api/canvases/{id}", "A canvas with its state", shapes.Canvas),
    Operation("put", "/api/canvases/{id}", "Keep a canvas", shapes.Canvas, CanvasBody),
    Operation("delete", "/api/canvases/{id}", "Remove a canvas", status=204),
    Operation("get", "/api/system", "Models, memory and state of the server", _FREE),
    Operation("post", "/api/models/{name}/verify", "Compare a model's files with their hashes", _FREE),
    Operation("get", "/healthz", "The process answers", _FREE),
    Operation("get", "/readyz", "Jobs are taken and drawn (503 if not)", _FREE),
    Operation("get", "/metrics", "Measurements for Prometheus", "text/plain"),
)


def document() -> dict[str, Any]:
    """OpenAPI 3.1 document."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = _operation(one, schemas)
    _schema(shapes.ErrorAnswer, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "unclip", "version": importlib.metadata.version("unclip")},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(one: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    names = [part[1:-1] for part in one.path.split("/") if part.startswith("{")]
    kinds = {"index": _NUMBER, "name": _TEXT}
    inside = [
        {"name": name, "in": "path", "required": True, "schema": kinds.get(name, {**_TEXT, "format": "uuid"})}
        for name in names
    ]
    query = [{"name": name, "in": "query", "schema": schema} for name, schema in one.query]
    error = {"content": {"application/json": {"schema": _schema(shapes.ErrorAnswer, schemas)}}}
    found: dict[str, Any] = {
        "operationId": one.method + "".join(part.strip("{}").title() for part in one.path.split("/")),
        "summary": one.summary,
        "parameters": [*inside, *query],
        "responses": {
            str(one.status): {"description": one.summary, **_content(one.answer, schemas)},
            "4XX": {"description": "The request was wrong", **error},
            "503": {"description": "Not now", **error},
        },
    }
    if one.body is bytes:
        kinds_of_file = ("image/png", "image/jpeg", "image/webp")
        found["requestBody"] = {"required": True, "content": dict.fromkeys(kinds_of_file, _PICTURE_FILE)}
    elif one.body is not None:
        schema = _body(one.body, schemas)
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found


def _content(answer: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if answer is None:
        return {}
    if isinstance(answer, str):
        return {"content": {answer: {"schema": {"type": "string"}} if answer.startswith("text/") else {}}}
    schema = {"type": "object"} if answer is _FREE else _schema(answer, schemas)
    return {"content": {"application/json": {"schema": schema}}}


def _body(body: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    found = _schema(body, schemas)
    if body is JobBody:
        from pydantic import Field

        tagged: Any = Annotated[Union[REQUESTS], Field(discriminator="kind")]  # noqa: UP007, made of a tuple
        schemas["JobBody"]["properties"]["request"] = _schema(tagged, schemas)
    schemas[body.__name__]["additionalProperties"] = False
    return found


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """A type's schema, with the named ones that it needs put into `schemas`."""
    from pydantic import TypeAdapter

    made = TypeAdapter(kind).json_schema(ref_template=_REFERENCE)
    schemas |= made.pop("$defs", {})
    title = made.get("title")
    if title is None or made.get("type") != "object":
        return made
    schemas[title] = made
    return {"$ref": _REFERENCE.format(model=title)}


def show(call: Call) -> dict[str, Any]:
    """The document."""
    return document()


def routes() -> Sequence[BaseRoute]:
    """The document's route; `/openapi.json` is that of the compatible API where there is one."""
    return [json_route("/api/openapi.json", GET=show)]
