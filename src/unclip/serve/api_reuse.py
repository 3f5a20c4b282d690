"""Our own API: how pictures were made (provenance of files, commands), and which captions fit them."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from unclip.errors import RequestError
from unclip.serve.api_jobs import id_of
from unclip.serve.errors import NotFound
from unclip.serve.http import Call, json_route, route
from unclip.serve.reuse import commands, read_picture
from unclip.serve.tables import pictures
from unclip.serve.views import picture_view

MAX_CAPTIONS = 1000
MAX_PICTURES = 16
_FROM_LIBRARY = 200


@dataclass(frozen=True, kw_only=True)
class CaptionsBody:
    """Pictures, and the captions to choose from; those of the library if none are given."""

    ids: tuple[str, ...]
    captions: tuple[str, ...] | None = None
    model: str | None = None


def read(call: Call) -> dict[str, Any]:
    """What a dropped picture records about how it was made."""
    return read_picture(call.body)


def show_commands(call: Call) -> dict[str, str]:
    id = id_of(call, what="picture")
    with call.service.database.read() as connection:
        found = picture_view(connection, id)
    if found is None:
        raise NotFound("picture", id)
    host = call.headers.get("host", "127.0.0.1")
    return commands(found["request"] or {}, found["model"], f"http://{host}")


def captions(call: Call) -> Response:
    body = call.json(CaptionsBody)
    if not 1 <= len(body.ids) <= MAX_PICTURES:
        raise RequestError(f"ids has {len(body.ids)} pictures: give 1 to {MAX_PICTURES}")
    choices = _known_captions(call) if body.captions is None else list(body.captions)
    if not 1 <= len(choices) <= MAX_CAPTIONS:
        raise RequestError(f"there are {len(choices)} captions to choose from: give 1 to {MAX_CAPTIONS}")
    name = call.service.catalog.resolve(body.model)
    with call.service.encoder(name) as model:
        items = [
            {
                "id": id,
                "captions": [
                    match._asdict()
                    for match in model.nearest_captions(call.service.library.source(id), choices)
                ],
            }
            for id in body.ids
        ]
    return JSONResponse({"model": name, "items": items})


def _known_captions(call: Call) -> list[str]:
    """The latest prompts of the library."""
    query = (
        select(pictures.c.prompt, func.max(pictures.c.created))
        .where(pictures.c.prompt.is_not(None) & pictures.c.deleted.is_(None))
        .group_by(pictures.c.prompt)
        .order_by(func.max(pictures.c.created).desc())
        .limit(_FROM_LIBRARY)
    )
    with call.service.database.read() as connection:
        return [row[0] for row in connection.execute(query)]


def routes() -> list[BaseRoute]:
    """Routes of provenance and captions."""
    return [
        route("/api/read", POST=read),
        json_route("/api/pictures/captions", POST=captions),
        json_route("/api/pictures/{id}/commands", GET=show_commands),
    ]
