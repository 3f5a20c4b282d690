"""Rate limits: a bucket of tokens per key, or per address where no key is needed."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unclip.serve.guard.errors import error_response, too_many
from unclip.serve.guard.keys import OWNER

MAX_BUCKETS = 10_000
"""Buckets that are remembered; the one that was not used for longest is forgotten first."""


@dataclass
class _Bucket:
    tokens: float
    filled: float


class Buckets:
    """Token buckets by name: `per_minute` requests a minute in the long run, `burst` at once."""

    def __init__(
        self, per_minute: float, burst: int | None = None, *, clock: Callable[[], float] = time.monotonic
    ):
        self.per_minute, self.clock = per_minute, clock
        self.burst = burst if burst is not None else max(1, math.ceil(per_minute))
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str) -> float:
        """0 where a request may pass, else the seconds until it may."""
        bucket = self._fill(name)
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) * 60 / self.per_minute

    def remaining(self, name: str) -> int:
        """Requests that may follow at once."""
        return int(self._fill(name).tokens)

    def reset(self, name: str) -> float:
        """Seconds until the bucket is full."""
        return (self.burst - self._fill(name).tokens) * 60 / self.per_minute

    def _fill(self, name: str) -> _Bucket:
        now = self.clock()
        bucket = self._buckets.pop(name, None) or _Bucket(float(self.burst), now)
        passed = max(0.0, now - bucket.filled)
        bucket.tokens = min(float(self.burst), bucket.tokens + passed * self.per_minute / 60)
        bucket.filled = now
        self._buckets[name] = bucket
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return bucket


def makes_pictures(scope: Scope) -> bool:
    """Whether a request asks for pictures: those count."""
    path = scope["path"]
    return scope["method"] == "POST" and (path.startswith("/v1/images/") or path == "/api/jobs")


class LimitRate:
    """ASGI middleware that answers 429 with `Retry-After` to a key that asks too often, and counts in headers.

    Runs inside of `RequireKey`. Counts are of this process; several servers behind one proxy each have their own.
    """

    def __init__(
        self, app: ASGIApp, buckets: Buckets | None, *, counts: Callable[[Scope], bool] = makes_pictures
    ):
        self.app, self.buckets, self.counts = app, buckets, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 429."""
        if scope["type"] != "http" or self.buckets is None or not self.counts(scope):
            await self.app(scope, receive, send)
            return
        client = scope.get("client") or ("",)
        owner = scope.get(OWNER)
        name = f"key {owner}" if owner else f"address {client[0]}"
        wait, buckets = self.buckets.take(name), self.buckets
        counted = {
            "x-ratelimit-limit-requests": str(buckets.burst),
            "x-ratelimit-remaining-requests": str(buckets.remaining(name)),
            "x-ratelimit-reset-requests": f"{buckets.reset(name):.3f}s",
        }
        if wait:
            error = too_many(
                f"Rate limit reached: {buckets.per_minute:g} requests a minute. Please try again in {wait:.1f} s.",
                wait,
            )
            error.headers.update(counted)
            await error_response(error)(scope, receive, send)
            return
        extra = [(key.encode(), value.encode()) for key, value in counted.items()]

        async def with_counts(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        await self.app(scope, receive, with_counts)
