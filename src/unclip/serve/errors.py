"""Errors of the server: what a client did wrong or must wait for, in the shape of OpenAI's API."""

from collections.abc import Mapping
from typing import Any

from unclip.errors import Cancelled, ModelError, RequestError, Unsupported
from unclip.images.errors import PictureError

__all__ = [
    "Cancelled",
    "ModelError",
    "NotFound",
    "QueueFull",
    "RequestError",
    "ServerError",
    "Unavailable",
    "Unsupported",
]


class ServerError(Exception):
    """An answer other than success: status, message, and the fields of OpenAI's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.type, self.param, self.code = status, message, type, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """JSON of the error."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class NotFound(ServerError):
    """Nothing has the given id."""

    def __init__(self, what: str, given: str):
        super().__init__(404, f"there is no {what} {given[:64]!r}", code="not_found")


class QueueFull(ServerError):
    """The queue holds as many pictures as it may; `seconds` until some are drawn."""

    def __init__(self, waiting: int, seconds: float):
        after = max(1, min(60, round(seconds)))
        super().__init__(
            429,
            f"the queue is full: {waiting} pictures are waiting; try again in {after} seconds",
            type="requests",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(after)},
        )


class Unavailable(ServerError):
    """The server, its database or its store cannot answer now."""

    def __init__(self, message: str, *, code: str = "unavailable", after: int = 5):
        super().__init__(503, message, type="server_error", code=code, headers={"Retry-After": str(after)})


def answer_for(error: Exception) -> ServerError | None:
    """The answer to an error of the request or of the model; None for a surprise."""
    if isinstance(error, ServerError):
        return error
    if isinstance(error, Unsupported):
        return ServerError(400, str(error), code="unsupported")
    if isinstance(error, PictureError):
        return ServerError(400, str(error), code="invalid_image")
    if isinstance(error, RequestError):
        return ServerError(400, str(error), code="invalid_request")
    return None
