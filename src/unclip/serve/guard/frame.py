"""Frame of every answer: request id, security headers, known content types, and the last resort for errors."""

import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unclip.serve.guard.errors import error_response, of_exception

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page."""
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""Content-Security-Policy of everything else, pictures included: opened by itself, nothing in it runs."""
DATA_TYPES = frozenset(
    {
        "application/json",
        "application/zip",
        "image/png",
        "image/webp",
        "text/event-stream",
        "text/plain",
    }
)
"""Content types of answers under `/api/` and `/v1/`; no browser runs any of them."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_ENCODED = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]


class Frame:
    """ASGI middleware around all others.

    Gives each request an id and each answer the headers above, `x-request-id` and `openai-processing-ms`. An exception
    that reaches it is logged, and answered with status 500 in OpenAI's shape, without a word of what went wrong.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with a `send` that completes the headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = scope.get("state", {}).get("request_id") or f"req_{secrets.token_hex(16)}"
        began, started = time.monotonic(), False

        async def framed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = _completed(scope["path"], list(message.get("headers", ())), name, began)
            await send(message)

        try:
            await self.app(scope, receive, framed)
        except Exception as error:
            if started:
                raise
            await error_response(of_exception(error))(scope, receive, framed)


def _completed(
    path: str, headers: list[tuple[bytes, bytes]], name: str, began: float
) -> list[tuple[bytes, bytes]]:
    present = {key.lower(): value for key, value in headers}
    kind = present.get(b"content-type", b"").split(b";")[0].strip().decode("latin-1").lower()
    data = path.startswith(("/api/", "/v1/"))
    if data and kind and kind not in DATA_TYPES:
        headers = [
            pair for pair in headers if pair[0].lower() not in (b"content-type", b"content-disposition")
        ]
        headers += [(b"content-type", b"application/octet-stream"), (b"content-disposition", b"attachment")]
    policy = PAGE_POLICY if kind == "text/html" and not data else DATA_POLICY
    # Files of the page (scripts, styles) need no sandbox, which is for documents.
    own = [(b"content-security-policy", policy.encode()), *_ENCODED]
    if kind in ("application/json", "text/event-stream"):
        own.append((b"cache-control", b"no-store"))
    if path.startswith("/v1/"):
        own.append((b"openai-version", b"2020-10-01"))
    milliseconds = round((time.monotonic() - began) * 1000)
    own += [
        (b"x-request-id", name.encode()),
        (b"openai-processing-ms", str(milliseconds).encode()),
    ]
    return [*headers, *(pair for pair in own if pair[0] not in present)]
