"""All guards of an application, in their order."""

from collections.abc import Iterable, Mapping

from starlette.middleware import Middleware

from unclip.serve.guard.bodies import DEFAULT_LIMIT, LimitBody
from unclip.serve.guard.frame import Frame
from unclip.serve.guard.hosts import CheckHost
from unclip.serve.guard.keys import Keys, RequireKey
from unclip.serve.guard.rate import Buckets, LimitRate
from unclip.serve.guard.sessions import Sessions

PUBLIC = (
    "/",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/favicon.ico",
    "/assets/",
    "/api/config",
    "/api/login",
    "/api/logout",
    "/v1/files/images/",
)
"""Paths that need no key: the page itself, health, and pictures whose URL is signed."""


def guards(
    *,
    keys: Keys,
    hosts: Iterable[str],
    sessions: Sessions | None = None,
    origins: Iterable[str] = (),
    any_address: bool = False,
    buckets: Buckets | None = None,
    limits: Mapping[str, int] | None = None,
    default_limit: int = DEFAULT_LIMIT,
    public: Iterable[str] = PUBLIC,
) -> list[Middleware]:
    """Middleware of an application, from the outside: frame of the answer, host and origin, key, rate, size of the body."""
    return [
        Middleware(Frame),
        Middleware(CheckHost, hosts, origins=origins, any_address=any_address),
        Middleware(RequireKey, keys, sessions=sessions, public=public),
        Middleware(LimitRate, buckets),
        Middleware(LimitBody, limits, default=default_limit),
    ]


def body_limits(picture: int) -> dict[str, int]:
    """Limits of bodies by path, for pictures of so many bytes: an edit has two, and JSON carries them in base64."""
    slack = 1 << 20
    return {
        "/v1/images/edits": picture * 3 + slack,
        "/v1/images/variations": picture + slack,
        "/api/uploads": picture + slack,
        "/api/read": picture + slack,
    }
