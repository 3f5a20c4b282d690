"""Answers that take long: clients give up where no header comes for five minutes, so headers are sent before that.

JSON may begin with spaces, so one is sent now and then until the body is there. Its status is 200 by then; if the job fails
after all, the connection is closed in the middle of the body, which clients report as an error of the connection.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unclip.serve.guard.errors import json_response

log = logging.getLogger(__name__)


async def timely(
    body: Coroutine[Any, Any, Any], *, patience: float, ping: float, headers: dict[str, str]
) -> Response:
    """The JSON answer of `body`, as soon as it is there; after `patience` seconds one whose headers go first.

    Raises what `body` raises before that.
    """
    work = asyncio.ensure_future(body)
    try:
        done, _ = await asyncio.wait({work}, timeout=patience)
    except BaseException:
        work.cancel()
        with contextlib.suppress(BaseException):
            await work
        raise
    if done:
        return json_response(work.result(), headers=headers)
    return _Late(work, ping, headers)


class _Late(Response):
    """Answer of a body that is not there yet."""

    def __init__(self, work: "asyncio.Future[Any]", ping: float, headers: dict[str, str]):
        super().__init__(headers=headers, media_type="application/json")
        del self.headers["content-length"]
        self.work, self.ping = work, ping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send headers, spaces, and the body."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while not self.work.done():
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
                await asyncio.wait({self.work}, timeout=self.ping)
            body = json_response(self.work.result()).body
            await send({"type": "http.response.body", "body": body})
        except ClientDisconnect:
            return
        finally:
            if not self.work.done():
                self.work.cancel()
                with contextlib.suppress(BaseException):
                    await self.work
