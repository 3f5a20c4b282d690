"""Bodies of requests within bounds: bytes counted while they arrive, with or without Content-Length, and time."""

import asyncio
import contextlib
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unclip.serve.guard.errors import ServerError, error_response
from unclip.serve.guard.wire import headers

DEFAULT_LIMIT = 1 << 20
"""Bytes of a body of JSON."""
LINGER = 2.0
PATIENCE = 60.0
"""Seconds in which the next bytes of a body must arrive."""


class LimitBody:
    """ASGI middleware that refuses a body as soon as it is longer than the limit of its path.

    `limits` maps the beginnings of paths to bytes; the longest that fits counts, else `default`. The rest of such a body
    is thrown away for a moment, then the connection is closed. Under `/v1/` the status is 400, which OpenAI's API has for it, else 413.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Mapping[str, int] | None = None,
        *,
        default: int = DEFAULT_LIMIT,
        patience: float = PATIENCE,
    ):
        self.app, self.default, self.patience = app, default, patience
        self.limits = sorted((limits or {}).items(), key=lambda item: -len(item[0]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with a counted `receive`, or answer with an error."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = next((most for path, most in self.limits if scope["path"].startswith(path)), self.default)
        lengths = headers(scope, b"content-length")
        if lengths and (len(lengths) > 1 or not lengths[0].isdigit()):
            await _refuse(
                ServerError(400, "The Content-Length header is malformed.", code="invalid_header"),
                scope,
                receive,
                send,
            )
            return
        # A number of a million digits takes minutes to read.
        if lengths and (len(lengths[0]) > 15 or int(lengths[0]) > limit):
            await _refuse(_too_large(scope, limit), scope, receive, send)
            return
        await self._counted(limit, scope, receive, send)

    async def _counted(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        seen, started, complete, refused = 0, False, False, False

        async def counted() -> Message:
            nonlocal seen, complete, refused
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(self.patience):
                    message = await receive()
            except TimeoutError:
                error = ServerError(408, "The body of the request did not arrive in time.", code="timeout")
                raise _closing(error) from None
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if seen > limit:
                    refused = True
                    raise _closing(_too_large(scope, limit))
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last and refused:
                await send({**message, "more_body": True})
                await _linger(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except ServerError as error:
            if started:
                raise
            await error_response(error)(scope, receive, send)


def _too_large(scope: Scope, limit: int) -> ServerError:
    status = 400 if scope["path"].startswith("/v1/") else 413
    return ServerError(
        status,
        f"The body of the request is larger than {limit / (1 << 20):g} MiB, the limit of {scope['path'][:100]}: send a "
        "smaller picture.",
        code="request_too_large",
    )


def _closing(error: ServerError) -> ServerError:
    error.headers["Connection"] = "close"
    return error


async def _linger(receive: Receive) -> None:
    """Throw away what still arrives, for a moment: a connection closed on a sender loses the answer on its way."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while True:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


async def _refuse(error: ServerError, scope: Scope, receive: Receive, send: Send) -> None:
    async def lingering(message: Message) -> None:
        if message["type"] == "http.response.body":
            await send({**message, "more_body": True})
            await _linger(receive)
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    await error_response(_closing(error))(scope, receive, lingering)
