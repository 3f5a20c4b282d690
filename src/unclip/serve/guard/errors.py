"""Errors of the server in OpenAI's shape: one place that makes statuses, bodies and headers."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from unclip.config import ConfigError
from unclip.disk import DiskFull
from unclip.errors import ModelError, RequestError, Unsupported
from unclip.images.errors import PictureError
from unclip.serve.errors import ServerError, answer_for

log = logging.getLogger(__name__)

MAX_MESSAGE = 2000
"""Characters of a message: values of a request are quoted in it."""
CLIENT_CLOSED = 499
"""Status in logs where the client has gone; nobody reads it."""


def error_response(error: ServerError) -> Response:
    """The HTTP answer that is an error; an overlong message is cut."""
    body = error.body
    if len(error.message) > MAX_MESSAGE:
        body["error"]["message"] = error.message[:MAX_MESSAGE] + "..."
    return json_response(body, error.status, error.headers)


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON in ASCII: half of a surrogate pair, which a request may hold, has no UTF-8."""
    data = json.dumps(body, allow_nan=False).encode("ascii")
    return Response(data, status, headers, media_type="application/json")


def invalid(
    message: str, *, param: str | None = None, code: str | None = None, status: int = 400
) -> ServerError:
    """An `invalid_request_error`."""
    return ServerError(status, message, param=param, code=code)


def unauthorised(message: str, code: str | None = None) -> ServerError:
    """Status 401."""
    return ServerError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def too_many(message: str, seconds: float) -> ServerError:
    """Status 429 with `Retry-After`, clamped to 1 .. 60 s: longer ones are not obeyed by OpenAI's clients."""
    wait = min(max(seconds, 1.0), 60.0)
    headers = {"Retry-After": str(int(-(-wait // 1))), "Retry-After-Ms": str(int(-(-wait * 1000 // 1)))}
    return ServerError(429, message, type="requests", code="rate_limit_exceeded", headers=headers)


def unavailable(message: str, seconds: float = 5.0) -> ServerError:
    """Status 503 with `Retry-After`."""
    wait = int(min(max(seconds, 1.0), 60.0))
    return ServerError(
        503, message, type="server_error", code="unavailable", headers={"Retry-After": str(wait)}
    )


def of_exception(error: BaseException) -> ServerError:
    """The answer to an exception. An unexpected one is logged, and the client gets no details of it."""
    found = answer_for(error) if isinstance(error, Exception) else None
    if found is not None:
        return found
    if isinstance(error, ConfigError):
        return invalid(str(error))
    if isinstance(error, HTTPException):
        return _of_http(error)
    if isinstance(error, ClientDisconnect):
        return invalid("The client has closed the connection.", status=CLIENT_CLOSED)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        log.error("out of memory", exc_info=error)
        return unavailable("The server has not enough memory for this request: ask for fewer pictures (n).")
    if isinstance(error, DiskFull):
        log.error("disk full", exc_info=error)
        return unavailable("The server's disk is full: its operator has to make room.", 60)
    if isinstance(error, ModelError):
        log.error("damaged model", exc_info=error)
        return ServerError(500, "The model is damaged: the server's log says where.", type="server_error")
    log.error("unexpected error", exc_info=error)
    return ServerError(
        500, "The server had an error while processing the request: its log says more.", type="server_error"
    )


_REASONS = {
    404: ("Invalid URL ({method} {path})", "unknown_url"),
    405: ("Not allowed to {method} on {path}", "method_not_supported"),
}


def _of_http(error: HTTPException) -> ServerError:
    kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
    return ServerError(error.status_code, str(error.detail), type=kind, headers=error.headers)


def _named(request: Request, error: Exception) -> ServerError:
    """The answer to an exception of a request; a router's own names method and path."""
    found = of_exception(error)
    if isinstance(error, HTTPException) and error.status_code in _REASONS:
        text, code = _REASONS[error.status_code]
        found.message = text.format(method=request.method[:20], path=request.url.path[:200])
        found.code = code
    return found


def handlers() -> dict[Any, Callable[[Request, Exception], Response]]:
    """Exception handlers of a Starlette application, for `Starlette(exception_handlers=...)`."""

    def answer(request: Request, error: Exception) -> Response:
        return error_response(_named(request, error))

    kinds = (ServerError, HTTPException, RequestError, ConfigError, Unsupported, PictureError, ModelError)
    return dict.fromkeys((*kinds, MemoryError, DiskFull, ClientDisconnect, Exception), answer)
