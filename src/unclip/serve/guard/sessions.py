"""Sessions of the page: a signed cookie that stands for a key, so that `<img>` and `EventSource` carry it."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unclip.serve.guard.errors import invalid, json_response, unauthorised

if TYPE_CHECKING:
    from unclip.serve.guard.keys import Keys

LIFETIME = 30 * 24 * 3600.0
MAX_LOGIN = 4096


class Sessions:
    """Signs and reads session cookies; a new `secret` ends all sessions, and so does taking the key away."""

    name = "unclip_session"

    def __init__(self, secret: bytes, *, clock: Callable[[], float] = time.time, lifetime: float = LIFETIME):
        self._secret = hashlib.sha256(b"session\0" + secret).digest()
        self.clock, self.lifetime = clock, lifetime

    def sign(self, owner: str) -> str:
        """Value of the cookie of the key called `owner`."""
        text = json.dumps([owner, int(self.clock() + self.lifetime)]).encode()
        return base64.urlsafe_b64encode(self._mac(text) + text).decode().rstrip("=")

    def owner(self, cookie: str) -> str | None:
        """Name of the key that a cookie stands for; None for one that is forged, damaged or expired."""
        try:
            data = base64.urlsafe_b64decode(cookie[:1000].encode("ascii") + b"==")
        except (binascii.Error, UnicodeEncodeError, ValueError):
            return None
        mac, text = data[:32], data[32:]
        if not hmac.compare_digest(mac, self._mac(text)):
            return None
        owner, end = json.loads(text)
        return owner if self.clock() < end else None

    def _mac(self, text: bytes) -> bytes:
        return hmac.new(self._secret, text, hashlib.sha256).digest()


def login_routes(keys: "Keys", sessions: Sessions) -> list[Route]:
    """`POST /api/login {"key": ...}`, which sets the cookie, and `POST /api/logout`."""

    async def login(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError):
            body = None
        key = body.get("key") if isinstance(body, dict) else None
        if not isinstance(key, str) or len(key) > MAX_LOGIN:
            raise invalid('The body is {"key": "..."} with one of the server\'s API keys.', param="key")
        owner = keys.owner(key)
        if owner is None:
            raise unauthorised("Incorrect API key provided.", "invalid_api_key")
        answer = json_response({"name": owner})
        answer.set_cookie(
            sessions.name,
            sessions.sign(owner),
            max_age=int(sessions.lifetime),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    async def logout(request: Request) -> Response:
        answer = json_response({})
        answer.delete_cookie(sessions.name, httponly=True, samesite="strict")
        return answer

    return [
        Route("/api/login", login, methods=["POST"]),
        Route("/api/logout", logout, methods=["POST"]),
    ]
