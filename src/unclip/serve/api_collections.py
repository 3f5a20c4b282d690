"""Our own API: collections of pictures, and canvases, the editor's unfinished work."""

import json
import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any

from sqlalchemy import Connection, delete, func, insert, select, update
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from unclip.config import Param
from unclip.errors import RequestError
from unclip.serve.api_jobs import id_of
from unclip.serve.errors import NotFound, ServerError
from unclip.serve.http import Call, json_route, route
from unclip.serve.tables import canvases, collections, members, pictures
from unclip.serve.views import time_text

MAX_NAME = 200
MAX_STATE = 256 << 10
MAX_ENTRIES = 10_000


@dataclass(frozen=True, kw_only=True)
class CollectionBody:
    """A collection's name."""

    name: str


@dataclass(frozen=True, kw_only=True)
class CanvasBody:
    """A canvas of the editor; `state` is the editor's own."""

    name: str = ""
    width: Annotated[int, Param("width in pixels", ge=1, le=65_536)]
    height: Annotated[int, Param("height in pixels", ge=1, le=65_536)]
    base: Annotated[str | None, Param("id of the picture that the canvas shows")] = None
    state: Annotated[Any, Param("the editor's state, any JSON of at most 256 KB")] = None
    seen: Annotated[
        str | None,
        Param("`updated` of the state that this one was made from: one saved meanwhile is kept (409)"),
    ] = None


def _name(text: str, *, may_be_empty: bool = False) -> str:
    text = text.strip()
    if not text and not may_be_empty:
        raise RequestError("the name is empty: give one")
    if len(text) > MAX_NAME:
        raise RequestError(f"the name has {len(text)} characters: give at most {MAX_NAME}")
    return text


def _few(connection: Connection, table: Any) -> None:
    if connection.execute(select(func.count()).select_from(table)).scalar_one() >= MAX_ENTRIES:
        raise RequestError(f"there are {MAX_ENTRIES} already: delete some first")


# Collections


def list_collections(call: Call) -> dict[str, Any]:
    with call.service.database.read() as connection:
        return {"items": _collections(connection)}


def _collections(connection: Connection, id: str | None = None) -> list[dict[str, Any]]:
    shown = (
        select(members.c.collection, func.count().label("count"), func.max(pictures.c.created).label("last"))
        .join(pictures, pictures.c.id == members.c.picture)
        .where(pictures.c.deleted.is_(None))
        .group_by(members.c.collection)
        .subquery()
    )
    query = select(collections, shown.c.count).outerjoin(shown, shown.c.collection == collections.c.id)
    if id is not None:
        query = query.where(collections.c.id == id)
    rows = connection.execute(query.order_by(collections.c.name, collections.c.id)).all()
    covers = _covers(connection, [row.id for row in rows])
    return [
        {
            "id": row.id,
            "name": row.name,
            "count": row[-1] or 0,
            "cover": covers.get(row.id),
            "created": time_text(row.created),
        }
        for row in rows
    ]


def _covers(connection: Connection, ids: list[str]) -> dict[str, str]:
    """The picture that joined each collection last."""
    query = (
        select(members.c.collection, members.c.picture)
        .join(pictures, pictures.c.id == members.c.picture)
        .where(members.c.collection.in_(ids) & pictures.c.deleted.is_(None))
        .order_by(members.c.added)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _collection(call: Call, id: str) -> dict[str, Any]:
    with call.service.database.read() as connection:
        found = _collections(connection, id)
    if not found:
        raise NotFound("collection", id)
    return found[0]


def create_collection(call: Call) -> Response:
    name, id = _name(call.json(CollectionBody).name), str(uuid.uuid4())
    with call.service.database.write() as connection:
        _few(connection, collections)
        connection.execute(insert(collections).values(id=id, name=name, created=time.time()))
    return JSONResponse(_collection(call, id), status_code=201)


def show_collection(call: Call) -> dict[str, Any]:
    return _collection(call, id_of(call, what="collection"))


def rename_collection(call: Call) -> dict[str, Any]:
    id, name = id_of(call, what="collection"), _name(call.json(CollectionBody).name)
    with call.service.database.write() as connection:
        connection.execute(update(collections).where(collections.c.id == id).values(name=name))
    return _collection(call, id)


def remove_collection(call: Call) -> None:
    id = id_of(call, what="collection")
    with call.service.database.write() as connection:
        if not connection.execute(delete(collections).where(collections.c.id == id)).rowcount:
            raise NotFound("collection", id)
        connection.execute(delete(members).where(members.c.collection == id))


def add_member(call: Call) -> None:
    id, picture = id_of(call, what="collection"), id_of(call, "picture", "picture")
    with call.service.database.write() as connection:
        for table, one, what in ((collections, id, "collection"), (pictures, picture, "picture")):
            if connection.execute(select(table.c.id).where(table.c.id == one)).first() is None:
                raise NotFound(what, one)
        there = (members.c.collection == id) & (members.c.picture == picture)
        if connection.execute(select(members.c.picture).where(there)).first() is None:
            connection.execute(insert(members).values(collection=id, picture=picture, added=time.time()))


def remove_member(call: Call) -> None:
    id, picture = id_of(call, what="collection"), id_of(call, "picture", "picture")
    with call.service.database.write() as connection:
        connection.execute(
            delete(members).where((members.c.collection == id) & (members.c.picture == picture))
        )


# Canvases


def list_canvases(call: Call) -> dict[str, Any]:
    columns = [column for column in canvases.c if column.name != "state"]
    with call.service.database.read() as connection:
        rows = connection.execute(select(*columns).order_by(canvases.c.updated.desc())).all()
    return {"items": [_canvas(row) for row in rows]}


def show_canvas(call: Call) -> dict[str, Any]:
    id = id_of(call, what="canvas")
    with call.service.database.read() as connection:
        row = connection.execute(select(canvases).where(canvases.c.id == id)).first()
    if row is None:
        raise NotFound("canvas", id)
    return {**_canvas(row), "state": json.loads(row.state)}


def create_canvas(call: Call) -> Response:
    id = str(uuid.uuid4())
    _save_canvas(call, id, call.json(CanvasBody))
    return JSONResponse(show_canvas(Call(**{**vars(call), "path": {"id": id}})), status_code=201)


def save_canvas(call: Call) -> dict[str, Any]:
    """Keep a canvas under an id that the editor chose (a UUID), so that saving twice makes one."""
    _save_canvas(call, id_of(call, what="canvas"), call.json(CanvasBody))
    return show_canvas(call)


def _save_canvas(call: Call, id: str, body: CanvasBody) -> None:
    state = json.dumps(body.state)
    if len(state) > MAX_STATE:
        raise RequestError(f"state takes {len(state)} bytes: give at most {MAX_STATE}")
    now = time.time()
    values: dict[str, Any] = {
        "name": _name(body.name, may_be_empty=True),
        "width": body.width,
        "height": body.height,
        "base": body.base,
        "state": state,
        "updated": now,
    }
    with call.service.database.write() as connection:
        shown = select(pictures.c.id).where(pictures.c.id == body.base)
        if body.base is not None and connection.execute(shown).first() is None:
            raise NotFound("picture", body.base)
        before = connection.execute(select(canvases.c.updated).where(canvases.c.id == id)).scalar()
        if body.seen is not None and before is not None and time_text(before) != body.seen:
            raise ServerError(
                409,
                "the canvas was changed elsewhere meanwhile: load it, or save a copy",
                code="canvas_changed",
            )
        if before is not None:
            values["updated"] = max(now, before + 0.001)
            connection.execute(update(canvases).where(canvases.c.id == id).values(**values))
        else:
            _few(connection, canvases)
            connection.execute(insert(canvases).values(id=id, created=now, **values))


def remove_canvas(call: Call) -> None:
    id = id_of(call, what="canvas")
    with call.service.database.write() as connection:
        if not connection.execute(delete(canvases).where(canvases.c.id == id)).rowcount:
            raise NotFound("canvas", id)


def _canvas(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "width": row.width,
        "height": row.height,
        "base": row.base,
        "created": time_text(row.created),
        "updated": time_text(row.updated),
    }


def routes() -> list[BaseRoute]:
    """Routes of collections and canvases."""
    return [
        json_route("/api/collections", GET=list_collections, POST=create_collection),
        json_route(
            "/api/collections/{id}", GET=show_collection, PATCH=rename_collection, DELETE=remove_collection
        ),
        json_route("/api/collections/{id}/pictures/{picture}", PUT=add_member, DELETE=remove_member),
        json_route("/api/canvases", GET=list_canvases, POST=create_canvas),
        route("/api/canvases/{id}", 2 * MAX_STATE, GET=show_canvas, PUT=save_canvas, DELETE=remove_canvas),
    ]
