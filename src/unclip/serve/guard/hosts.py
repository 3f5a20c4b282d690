"""Host and Origin of requests: against DNS rebinding, and against pages of other sites that send requests here."""

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unclip.errors import RequestError
from unclip.serve.guard.errors import ServerError, error_response
from unclip.serve.guard.wire import SAFE, header, headers

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:\d{1,5})?")
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_CORS_HEADERS = "authorization, content-type, last-event-id, x-requested-with"


def allowed_hosts(bound: str, more: Iterable[str] = (), public_url: str | None = None) -> frozenset[str]:
    """Names that the server answers to: loopback's, the address it is bound to, that of `public_url`, and `more`."""
    own = urlsplit(public_url).hostname if public_url else None
    names = [*_LOCAL, bound, own or "", *more]
    return frozenset(_bracketed(name.lower().rstrip(".")) for name in names if name)


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name and not name.startswith("[") else name


def read_origin(text: str) -> str:
    """An origin `scheme://host[:port]` in lower case. Raises `RequestError` for anything else, `*` and `null` included."""
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
        raise RequestError(f"the origin {text!r} is none: give it as https://example.org")
    return f"{parts.scheme}://{parts.netloc}".lower()


class CheckHost:
    """ASGI middleware that refuses requests to another host name (421) and of other sites' pages (403).

    With DNS rebinding a page's own name points at this machine, so names are checked. An address is not a name: where the
    server listens on every address, any of them is right (`any_address`). Requests that change something and carry an
    `Origin` must have the server's own, or one of `origins`; `null` never is. `origins` may read answers too (CORS).
    WebSockets are refused.
    """

    def __init__(
        self, app: ASGIApp, hosts: Iterable[str], *, origins: Iterable[str] = (), any_address: bool = False
    ):
        self.app, self.any_address = app, any_address
        self.hosts = frozenset(hosts)
        self.origins = frozenset(read_origin(origin) for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer with an error."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "no WebSockets here"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        error = self._problem(scope)
        if error is not None:
            await error_response(error)(scope, receive, send)
            return
        origin = header(scope, b"origin").decode("latin-1").lower()
        if origin not in self.origins:
            await self.app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and headers(scope, b"access-control-request-method"):
            await _preflight(origin, send)
            return
        await self.app(scope, receive, _readable(origin, send))

    def _problem(self, scope: Scope) -> ServerError | None:
        hosts = headers(scope, b"host")
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return ServerError(400, "The Host header is missing, repeated or malformed.", code="invalid_host")
        name = match[1].decode("ascii").lower().rstrip(".")
        if name not in self.hosts and not (self.any_address and _is_address(name)):
            return ServerError(
                421,
                f"This server does not answer to the host name {name!r}: use its address, or let its operator allow the "
                "name (--allowed-host).",
                code="unknown_host",
            )
        if scope["method"] in SAFE:
            return None
        if scope["method"] in ("TRACE", "CONNECT", "TRACK"):
            return ServerError(405, f"Not allowed to {scope['method']}.", code="method_not_supported")
        return self._origin_problem(scope, hosts[0])

    def _origin_problem(self, scope: Scope, host: bytes) -> ServerError | None:
        given = headers(scope, b"origin")
        if not given:
            # A browser that leaves Origin out of a request to another site still says so here.
            if header(scope, b"sec-fetch-site") in (b"cross-site", b"same-site"):
                return _foreign("another site")
            return None
        origin = given[0].decode("latin-1").lower() if len(given) == 1 else "repeated"
        # Behind a proxy that ends TLS, the scheme seen here is http and the page's is https: compare host and port.
        scheme, _, place = origin.partition("://")
        own = scheme in ("http", "https") and place == host.decode("ascii").lower()
        return None if own or origin in self.origins else _foreign(origin)


def _foreign(origin: str) -> ServerError:
    return ServerError(
        403,
        f"Pages of {origin[:100]!r} may not change anything here: its operator can allow them (--allowed-origin).",
        code="forbidden_origin",
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _readable(origin: str, send: Send) -> Send:
    """`send` that lets pages of `origin` read the answer."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", ()),
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-expose-headers", b"x-request-id, retry-after, x-ignored-params"),
                (b"vary", b"Origin"),
            ]
        await send(message)

    return wrapped


async def _preflight(origin: str, send: Send) -> None:
    allow = {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE",
        "access-control-allow-headers": _CORS_HEADERS,
        "access-control-max-age": "600",
        "vary": "Origin",
    }
    listed = [(name.encode(), value.encode("latin-1")) for name, value in allow.items()]
    await send({"type": "http.response.start", "status": 204, "headers": listed})
    await send({"type": "http.response.body", "body": b""})


def is_any_address(bound: str) -> bool:
    """Whether an address to listen on stands for all addresses of the machine."""
    return bound in ("", "0.0.0.0", "::", "[::]")
