"""Our own API: given and drawn pictures, their files, thumbnails and ancestry, stars, deletes and exports."""

import io
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any

from sqlalchemy import func, select, update
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from unclip.config import Param, shown
from unclip.errors import RequestError
from unclip.serve.api_jobs import id_of, read_cursor
from unclip.serve.errors import NotFound, ServerError
from unclip.serve.http import Call, json_route, route
from unclip.serve.shapes import Lineage, Picture, Pictures
from unclip.serve.tables import members, parents, pictures
from unclip.serve.views import picture_view, picture_views

FILE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
    "Cache-Control": "private, max-age=31536000, immutable",
}
MAX_ZIP = 1000
MAX_FAMILY = 500


@dataclass(frozen=True, kw_only=True)
class PictureChange:
    """A change of a picture's entry."""

    starred: bool | None = None
    title: Annotated[str | None, Param("title; empty to remove it")] = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Pictures by their ids."""

    ids: tuple[str, ...]


def upload(call: Call) -> Response:
    if not call.body:
        raise ServerError(400, "the body is empty: send a PNG, JPEG or WebP file", code="invalid_image")
    return JSONResponse(call.service.library.upload(call.body), status_code=201)


def upload_file(call: Call) -> Response:
    from unclip.serve.store import upload_name

    id = id_of(call, what="upload")
    try:
        data = call.service.store.get(upload_name(id))
    except KeyError:
        raise NotFound("upload", id) from None
    return Response(data, media_type="image/png", headers=FILE_HEADERS)


def show(call: Call) -> Picture:
    return _view(call, id_of(call, what="picture"))


def _view(call: Call, id: str) -> Picture:
    with call.service.database.read() as connection:
        found = picture_view(connection, id)
    if found is None:
        raise NotFound("picture", id)
    return found


def change(call: Call) -> Picture:
    id, body = id_of(call, what="picture"), call.json(PictureChange)
    values: dict[str, Any] = {} if body.starred is None else {"starred": body.starred}
    if body.title is not None:
        if len(body.title) > 500:
            raise RequestError(f"title has {len(body.title)} characters: give at most 500")
        values["title"] = body.title.strip() or None
    if values:
        with call.service.database.write() as connection:
            connection.execute(update(pictures).where(pictures.c.id == id).values(**values))
    return _view(call, id)


def remove(call: Call) -> None:
    call.service.library.delete(id_of(call, what="picture"))


def restore(call: Call) -> Picture:
    id = id_of(call, what="picture")
    call.service.library.restore(id)
    return _view(call, id)


def file(call: Call) -> Response:
    id = id_of(call, what="picture")
    data = call.service.library.file(id)
    headers = {**FILE_HEADERS, "ETag": f'"{id}"'}
    if call.query.get("download") in ("1", "true"):
        headers["Content-Disposition"] = f'attachment; filename="{id}.png"'
    if call.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/png", headers=headers)


def thumbnail(call: Call) -> Response:
    from unclip.images import open_picture

    id, side = id_of(call, what="picture"), call.whole("side", 256, 16, 1024)
    headers = {**FILE_HEADERS, "ETag": f'"{id}-{side}"'}
    if call.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    image = open_picture(call.service.library.file(id))
    if max(image.size) > side:
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85, method=2)
    return Response(buffer.getvalue(), media_type="image/webp", headers=headers)


def listing(call: Call) -> Pictures:
    limit, wanted = call.whole("limit", 60, 1, 500), _filter(call)
    query = select(pictures).where(*wanted)
    if cursor := call.query.get("cursor"):
        created, id = read_cursor(cursor)
        earlier = (pictures.c.created == created) & (pictures.c.id < id)
        query = query.where((pictures.c.created < created) | earlier)
    query = query.order_by(pictures.c.created.desc(), pictures.c.id.desc()).limit(limit + 1)
    with call.service.database.read() as connection:
        rows = connection.execute(query).all()
        total = connection.execute(select(func.count()).select_from(pictures).where(*wanted)).scalar_one()
        items = picture_views(connection, rows[:limit])
    last = rows[limit - 1] if len(rows) > limit else None
    return {"items": items, "next": None if last is None else f"{last.created!r}_{last.id}", "total": total}


def _filter(call: Call) -> list[Any]:
    """Conditions of a query: all words in prompt, title, kind or model; and exact values of the others."""
    deleted = call.flag("deleted") or False
    found: list[Any] = [pictures.c.deleted.is_not(None) if deleted else pictures.c.deleted.is_(None)]
    for word in call.query.get("query", "").lower().split()[:16]:
        inside = pictures.c.words.contains(word, autoescape=True)
        found.append(inside | func.lower(pictures.c.title).contains(word, autoescape=True))
    for name in ("kind", "model"):
        if value := call.query.get(name):
            found.append(pictures.c[name] == value)
    if size := call.query.get("size"):
        sides = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", size)
        if sides is None:
            raise RequestError(f"size is {shown(size)}: give a side, or WIDTHxHEIGHT")
        found += [pictures.c.width == int(sides[1]), pictures.c.height == int(sides[2] or sides[1])]
    if (starred := call.flag("starred")) is not None:
        found.append(pictures.c.starred.is_(starred))
    if collection := call.query.get("collection"):
        found.append(pictures.c.id.in_(select(members.c.picture).where(members.c.collection == collection)))
    return found


def lineage(call: Call) -> Lineage:
    """What a picture was made from, nearest first, and what was made from it."""
    id = id_of(call, what="picture")
    _view(call, id)
    up = _family(call, id, parents.c.picture, parents.c.source)
    down = _family(call, id, parents.c.source, parents.c.picture)
    return {"ancestors": up, "children": down}


def _family(call: Call, id: str, near: Any, far: Any) -> list[Picture]:
    found: dict[str, None] = {}
    level = [id]
    with call.service.database.read() as connection:
        while level and len(found) < MAX_FAMILY:
            next_ones = connection.execute(select(far).where(near.in_(level)).distinct()).scalars().all()
            level = [one for one in next_ones if one not in found and one != id]
            found |= dict.fromkeys(level)
        rows = connection.execute(select(pictures).where(pictures.c.id.in_(list(found)))).all()
        by_id = {view["id"]: view for view in picture_views(connection, rows)}
    return [by_id[one] for one in found if one in by_id]


def export(call: Call) -> Response:
    """A zip archive of pictures, each with its provenance inside, and a list of them as JSON."""
    import zipfile

    ids = call.json(Selection).ids
    if not 1 <= len(ids) <= MAX_ZIP:
        raise RequestError(f"ids has {len(ids)} pictures: give 1 to {MAX_ZIP}")
    buffer, entries = io.BytesIO(), []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for id in dict.fromkeys(ids):
            view = _view(call, id)
            archive.writestr(f"{id}.png", call.service.library.file(id))
            entries.append(view)
        archive.writestr("pictures.json", json.dumps(entries, indent=2))
    headers = {
        "Content-Disposition": 'attachment; filename="pictures.zip"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(buffer.getvalue(), media_type="application/zip", headers=headers)


def routes() -> list[BaseRoute]:
    """Routes of pictures."""
    return [
        route("/api/uploads", POST=upload),
        json_route("/api/uploads/{id}/file", GET=upload_file),
        json_route("/api/pictures", GET=listing),
        json_route("/api/pictures/zip", POST=export),
        json_route("/api/pictures/{id}", GET=show, PATCH=change, DELETE=remove),
        json_route("/api/pictures/{id}/restore", POST=restore),
        json_route("/api/pictures/{id}/file", GET=file),
        json_route("/api/pictures/{id}/thumbnail", GET=thumbnail),
        json_route("/api/pictures/{id}/lineage", GET=lineage),
    ]
