"""The frame of all routes: bodies read with limits, work done in threads, answers and errors as JSON."""

import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unclip.config import check, from_dict, shown
from unclip.errors import RequestError
from unclip.serve.errors import ServerError, answer_for
from unclip.serve.service import Service
from unclip.serve.values import check_values

logger = logging.getLogger(__name__)

Body = TypeVar("Body")

MAX_JSON = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request whose body was read."""

    service: Service
    path: Mapping[str, Any]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self, cls: type[Body]) -> Body:
        """The body as a dataclass. Raises `RequestError` for text that is no JSON, and naming a wrong key."""
        try:
            data = json.loads(self.body or b"{}")
        except (ValueError, RecursionError):
            raise RequestError("the body is no JSON") from None
        check_values(data, "body")
        read = from_dict(cls, data, "body", error=RequestError)
        check(read, RequestError)
        return read

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number of the query. Raises `RequestError` outside of its range."""
        text = self.query.get(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 12 or not least <= int(text) <= most:
            raise RequestError(f"{name} is {shown(text)}: give a number from {least} to {most}")
        return int(text)

    def flag(self, name: str) -> bool | None:
        """A yes or no of the query; None where it is not given. Raises `RequestError` for another word."""
        text = self.query.get(name)
        if text in (None, ""):
            return None
        if text not in ("true", "false", "1", "0"):
            raise RequestError(f"{name} is {shown(text)}: give true or false")
        return text in ("true", "1")


Handler = Callable[[Call], Any]
"""What a route does, in a thread: gives JSON, a `Response`, or None for no content."""


def service_of(request: Request) -> Service:
    """The service of the app that a request came to."""
    return request.app.state.service


async def read_limited(request: Request, limit: int) -> bytes:
    """The body, refused as soon as it is longer than `limit`, whatever its header says. Raises `ServerError` (413)."""
    too_large = ServerError(413, f"the body has more than {limit} bytes: send less", code="body_too_large")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > limit:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def route(path: str, limit: int | None = None, **handlers: Handler) -> Route:
    """A route with one handler per method, such as `GET=list_jobs`. `limit` is that of the body; None the upload's."""

    async def endpoint(request: Request) -> Response:
        service = service_of(request)
        method = "GET" if request.method == "HEAD" else request.method
        most = service.settings.max_upload if limit is None else limit
        try:
            for name, text in (*request.query_params.items(), *request.path_params.items()):
                check_values(text, name)
            body = await read_limited(request, most) if method != "GET" else b""
            if limit is None and request.headers.get("content-type", "").startswith("multipart/"):
                body = await _file_of(request, body)
            call = Call(
                service=service,
                path=request.path_params,
                query=request.query_params,
                headers=request.headers,
                body=body,
            )
            found = await run_in_threadpool(handlers[method], call)
        except Exception as error:
            return error_response(request, error)
        if isinstance(found, Response):
            return found
        return Response(status_code=204) if found is None else JSONResponse(found)

    return Route(path, endpoint, methods=list(handlers))


async def _file_of(request: Request, body: bytes) -> bytes:
    """The file `image` of a multipart form. Raises `ServerError` for a form without it."""
    from unclip.serve.guard.forms import read_form

    async def replay() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    files = (await read_form(Request(request.scope, replay))).files.get("image", [])
    if len(files) != 1:
        raise ServerError(400, f"the form has {len(files)} files named image: give one", param="image")
    return files[0].data


json_route = functools.partial(route, limit=MAX_JSON)


def error_response(request: Request, error: Exception) -> Response:
    """The answer to an error: its own words, or that something went wrong, which is logged with the request's id."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        found = ServerError(error.status_code, str(error.detail), code="http", headers=headers)
    else:
        found = answer_for(error)
    if found is None:
        logger.exception("a request failed", exc_info=error)
        found = ServerError(
            500, "something went wrong here; the log says what", type="server_error", code="internal_error"
        )
    return JSONResponse(found.body, status_code=found.status, headers=found.headers)
