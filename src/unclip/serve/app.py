"""The ASGI application: routes of all APIs over one `Service`.

Starlette, not FastAPI: requests are read by the dataclasses that the command line and Python use, whose errors name value
and remedy, and whose JSON Schema makes the OpenAPI document. FastAPI would check them a second time in its own words.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from unclip.serve import (
    api_collections,
    api_compose,
    api_jobs,
    api_library,
    api_reuse,
    api_system,
    openapi,
    page,
)
from unclip.serve.http import error_response
from unclip.serve.request_log import RequestLog
from unclip.serve.service import Service
from unclip.serve.settings import Settings


def create_app(
    settings: Settings,
    *,
    routes: Sequence[BaseRoute] = (),
    middleware: Sequence[Middleware] = (),
    key_required: bool = False,
) -> Starlette:
    """The application, with further routes and middleware, which ask for a key or do not. Its service (`app.state.service`) runs while the app does."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        from starlette.concurrency import run_in_threadpool

        service = app.state.service = await run_in_threadpool(Service, settings)
        service.key_required = key_required
        await run_in_threadpool(service.start)
        try:
            yield
        finally:
            await run_in_threadpool(service.close)

    handlers: Any = {HTTPException: error_response, Exception: error_response}
    own = [
        route
        for part in (
            api_jobs,
            api_reuse,
            api_library,
            api_collections,
            api_compose,
            api_system,
            openapi,
            page,
        )
        for route in part.routes()
    ]
    return Starlette(
        routes=[*own, *routes],
        middleware=[Middleware(RequestLog), *middleware],
        exception_handlers=handlers,
        lifespan=lifespan,
    )
