"""The compatible API's backend: the server's queue, library and models."""

import asyncio
import base64
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from unclip.errors import ModelError
from unclip.generate.request import Request
from unclip.serve.errors import NotFound, ServerError, Unavailable
from unclip.serve.openai.backend import Drawn, Preview, Served
from unclip.serve.service import Service
from unclip.serve.states import LOST, NO_MEMORY, NOT_DRAWN

log = logging.getLogger(__name__)


class ServiceBackend:
    """Calls become jobs of the server's queue. `service` gives the running service."""

    def __init__(self, service: Callable[[], Service]):
        self._service = service
        self._served: dict[str, Served] = {}

    async def models(self) -> Sequence[Served]:
        """The models, the default one first; one that cannot be opened is left out, and logged."""
        return await asyncio.to_thread(self._models)

    def _models(self) -> list[Served]:
        catalog = self._service().catalog
        for name in catalog.names:
            if name in self._served:
                continue
            try:
                found = catalog.describe(name)
            except (ModelError, FileNotFoundError) as error:
                log.error("the model %s cannot be opened: %s", name, error)
                continue
            operations: dict[str, bool | str] = found["operations"]
            self._served[name] = Served(
                name=name,
                sizes=tuple(found["sizes"]),
                default_size=found["default_size"],
                step=found["size_step"],
                lacks={kind: reason for kind, reason in operations.items() if isinstance(reason, str)},
            )
        found = [self._served[name] for name in catalog.names if name in self._served]
        if not found:
            raise Unavailable("no model of this server can be opened: its log says why")
        return found

    async def submit(
        self, request: Request, sources: Sequence[bytes], *, model: str, previews: bool, owner: str | None
    ) -> str:
        """Id of a new job."""

        def submit() -> str:
            service = self._service()
            roles = type(request).sources.names
            given = [(role, service.library.upload(data)["id"]) for role, data in zip(roles, sources)]
            return service.submit(request, given, model=model, previews=previews, client=owner)

        return await asyncio.to_thread(submit)

    async def events(self, job: str) -> AsyncIterator[Preview | Drawn]:
        """Previews and pictures of a job. Raises `ServerError` where it fails."""
        done: dict[int, float] = {}
        following: Any = self._service().hub.follow(job)
        async with aclosing(following) as events:
            async for event in events:
                data = event.data
                if event.type == "progress":
                    done[data["picture"]] = data["fraction"]
                elif event.type == "preview":
                    png = base64.b64decode(data["image"].partition(",")[2])
                    # The step that ends a picture is not its end: that is its own event.
                    fraction = min(done.get(data["picture"], 0.0), 0.999)
                    yield Preview(picture=data["picture"], png=png, fraction=fraction)
                elif event.type == "picture":
                    yield _drawn(data["picture"])
                elif event.type == "end":
                    _check_end(data)
                    return
        raise Unavailable("The server is ending: try again soon.", code="shutting_down")

    async def cancel(self, job: str) -> None:
        """End a job."""
        await asyncio.to_thread(self._service().cancel, job)

    async def picture(self, id: str) -> bytes | None:
        """PNG of a picture that was not deleted."""

        def read() -> bytes | None:
            service, name = self._service(), str(uuid.UUID(id))
            try:
                return None if service.library.is_deleted(name) else service.library.file(name)
            except NotFound:
                return None

        return await asyncio.to_thread(read)


def _drawn(picture: dict[str, Any]) -> Drawn:
    return Drawn(
        picture=picture["index"],
        id=uuid.UUID(picture["id"]).hex,
        seed=picture["seed"],
        warnings=tuple(picture["warnings"]),
    )


def _check_end(job: dict[str, Any]) -> None:
    """Raise the error that a job ended with."""
    if job["state"] == "cancelled":
        raise ServerError(400, "The job was cancelled at the server.", code="cancelled")
    if job["state"] != "failed":
        return
    text = job["error"] or NOT_DRAWN
    if text.startswith(NO_MEMORY):
        raise Unavailable(f"{text}, or for fewer pictures", code="out_of_memory")
    if text.startswith((NOT_DRAWN, LOST)):
        raise ServerError(500, f"The server could not do it: {text}", type="server_error", code="not_drawn")
    raise ServerError(400, text, code="invalid_request")
