"""Middleware that gives every HTTP request an id, measures it and logs it: no bodies, no prompts, no query texts."""

import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unclip.serve.logs import request_id
from unclip.serve.metrics import REQUESTS, SECONDS

logger = logging.getLogger(__name__)

_QUIET = ("/healthz", "/readyz", "/metrics")
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestLog:
    """Sets `X-Request-ID` (a client's own, if it is short and plain), counts, and logs one line a request."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        id = given.decode() if _GIVEN.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = id
        token = request_id.set(id)
        started, status, streams = time.perf_counter(), 499, False

        async def answer(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = id
                headers.setdefault("X-Content-Type-Options", "nosniff")
                streams = headers.get("content-type", "").startswith("text/event-stream")
            await send(message)

        try:
            await self.app(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - started
            self._record(scope, status, seconds, streams)
            request_id.reset(token)

    def _record(self, scope: Any, status: int, seconds: float, streams: bool) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        REQUESTS.labels(scope["method"], route, str(status)).inc()
        if not streams:
            SECONDS.labels(route).observe(seconds)
        if route not in _QUIET:
            more = {
                "method": scope["method"],
                "path": route,
                "status": status,
                "ms": round(1000 * seconds, 1),
            }
            logger.info("request", extra=more)
