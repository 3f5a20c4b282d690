"""Running a call: its job is submitted, followed, cancelled when the client goes, and answered whole or as a stream."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unclip.serve.guard.errors import ServerError, of_exception
from unclip.serve.guard.pictures import decoding
from unclip.serve.openai import answers
from unclip.serve.openai.backend import Backend, Drawn, Preview
from unclip.serve.openai.calls import Call
from unclip.serve.openai.connection import finish, while_connected
from unclip.serve.openai.sizes import fitted, thumbnail


async def draw(
    backend: Backend, call: Call, job: str, *, receive: Receive
) -> tuple[Sequence[Drawn], dict[str, bytes]]:
    """All pictures of a job, and for `b64_json` their PNGs by id. The job is cancelled if the client goes."""

    async def collect() -> tuple[Sequence[Drawn], dict[str, bytes]]:
        found: dict[int, Drawn] = {}
        async with _closing(backend.events(job)) as events:
            async for event in events:
                if isinstance(event, Drawn):
                    found[event.picture] = event
        drawn = [found[index] for index in sorted(found)]
        wanted = drawn if call.response_format == "b64_json" else ()
        return drawn, {one.id: await picture_of(backend, one.id, call.output.size) for one in wanted}

    try:
        return await while_connected(receive, collect())
    except BaseException:
        await finish(backend.cancel(job))
        raise


async def picture_of(backend: Backend, id: str, size: tuple[int, int] | None) -> bytes:
    """PNG of a finished picture at a size. Raises `ServerError` (404) where there is none."""
    png = await backend.picture(id)
    if png is None:
        raise ServerError(404, "The picture was deleted.", code="not_found")
    return await decoding(lambda: fitted(png, size))


class EventStream(Response):
    """Answer that streams the events of a job: partial images as asked for, then each picture when it is finished."""

    def __init__(
        self,
        backend: Backend,
        call: Call,
        job: str,
        *,
        ping_seconds: float,
        headers: dict[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ):
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]
        self.backend, self.call, self.job, self.ping, self.clock = backend, call, job, ping_seconds, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, until all are sent or the client has gone."""
        try:
            await while_connected(receive, self._send_all(send))
        except ClientDisconnect:
            await finish(self.backend.cancel(self.job))
        except BaseException:
            await finish(self.backend.cancel(self.job))
            raise

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(with_pings(self._chunks(), self.ping)) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            async with _closing(self.backend.events(self.job)) as events:
                async for event, index in chosen(events, self.call.partial_images):
                    yield await self._chunk(event, index)
        except Exception as error:
            # The status was sent long ago: clients raise for an event with an error.
            await self.backend.cancel(self.job)
            yield answers.event("error", of_exception(error).body)

    async def _chunk(self, event: Preview | Drawn, index: int) -> bytes:
        now, size = int(self.clock()), self.call.output.size
        if isinstance(event, Drawn):
            png = await picture_of(self.backend, event.id, size)
            return answers.completed_event(self.call, png, event, now)
        side = self.call.model.default_size
        shown = await decoding(lambda: thumbnail(event.png, size or (side, side)))
        return answers.partial_event(self.call, shown, index, now)


@asynccontextmanager
async def _closing(events: AsyncIterator[Preview | Drawn]) -> AsyncIterator[AsyncIterator[Preview | Drawn]]:
    """Events, closed at the end where they are a generator."""
    try:
        yield events
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def chosen(
    events: AsyncIterator[Preview | Drawn], partial: int
) -> AsyncIterator[tuple[Preview | Drawn, int]]:
    """Events, with at most `partial` previews of each picture, numbered, at evenly spaced shares of its steps."""
    shown: dict[int, int] = {}
    async for event in events:
        if isinstance(event, Drawn):
            yield event, 0
            continue
        index = shown.get(event.picture, 0)
        if index < min(int(event.fraction * (partial + 1)), partial):
            shown[event.picture] = index + 1
            yield event, index


async def with_pings(chunks: AsyncIterator[bytes], seconds: float) -> AsyncGenerator[bytes]:
    """Chunks, with a comment wherever `seconds` pass without one, so that no proxy closes the connection."""
    iterator = chunks.__aiter__()
    waiting = asyncio.ensure_future(_next(iterator))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=seconds)
            if not done:
                yield answers.PING
                continue
            chunk = waiting.result()
            if chunk is None:
                return
            yield chunk
            waiting = asyncio.ensure_future(_next(iterator))
    finally:
        if not waiting.done():
            waiting.cancel()
            await asyncio.wait({waiting})
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


async def _next(iterator: AsyncIterator[bytes]) -> bytes | None:
    return await anext(iterator, None)
