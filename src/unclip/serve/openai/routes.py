"""Routes of the compatible API under `/v1`."""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from unclip.serve.guard.errors import (
    CLIENT_CLOSED,
    ServerError,
    error_response,
    invalid,
    json_response,
    of_exception,
)
from unclip.serve.guard.forms import File, read_form
from unclip.serve.guard.keys import OWNER
from unclip.serve.openai import answers
from unclip.serve.openai.backend import Backend, Drawn
from unclip.serve.openai.calls import Call, Endpoint, choose_model, read_call
from unclip.serve.openai.drawing import EventStream, draw, picture_of
from unclip.serve.openai.fields import Fields, parse_json
from unclip.serve.openai.files import FileLink, Links
from unclip.serve.openai.late import timely
from unclip.serve.openai.options import Options
from unclip.serve.openai.pictures import data_files, read_pictures

log = logging.getLogger(__name__)

FILES = "/v1/files/images/"
_HEADER_SAFE = re.compile(r"[^A-Za-z0-9_.\[\]-]")
_MAX_LISTED = 20


Handler = Callable[[Request], Awaitable[Response]]


def answered(endpoint: Handler) -> Handler:
    """An endpoint whose errors are answers."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Exception as error:
            return error_response(of_exception(error))

    return answer


class OpenAI:
    """The compatible API over a `backend`. `clock` is Unix time."""

    def __init__(
        self, backend: Backend, options: Options | None = None, *, clock: Callable[[], float] = time.time
    ):
        self.backend, self.options, self.clock = backend, options or Options(), clock
        if not self.options.secret:
            raise ValueError("give Options(secret=...): URLs of pictures are signed with it")
        self.links = Links(self.options.secret, seconds=self.options.url_seconds, clock=clock)
        self._seen_ignored: set[str] = set()

    @property
    def routes(self) -> list[Route]:
        """Routes for a Starlette application."""
        return [
            Route("/v1/images/generations", answered(self.generations), methods=["POST"]),
            Route("/v1/images/edits", answered(self.edits), methods=["POST"]),
            Route("/v1/images/variations", answered(self.variations), methods=["POST"]),
            Route("/v1/models", answered(self.models), methods=["GET"]),
            Route("/v1/models/{model:path}", answered(self.model), methods=["GET"]),
            Route(FILES + "{name}", answered(self.file), methods=["GET"]),
            Route("/v1/{rest:path}", answered(_nothing), methods=_METHODS),
        ]

    async def generations(self, request: Request) -> Response:
        """`POST /v1/images/generations`."""
        return await self._answer(request, "generations", Fields(await _json(request)), {})

    async def edits(self, request: Request) -> Response:
        """`POST /v1/images/edits`: a form, or JSON with data: URLs."""
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return await self._form(request, "edits")
        if self.options.strict:
            raise invalid("DALL·E edits require multipart/form-data.", code="unsupported_content_type")
        body = await _json(request)
        files = {
            name: data_files(body.pop(key), key, self.options)
            for key, name in (("images", "image"), ("mask", "mask"))
            if body.get(key) is not None
        }
        return await self._answer(request, "edits", Fields(body), files)

    async def variations(self, request: Request) -> Response:
        """`POST /v1/images/variations`."""
        return await self._form(request, "variations")

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        data = answers.listing(await self.backend.models(), self.options)
        return json_response({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`."""
        name, models = request.path_params["model"], await self.backend.models()
        choose_model(name, models, self.options)
        return json_response(
            next(entry for entry in answers.listing(models, self.options) if entry["id"] == name)
        )

    async def file(self, request: Request) -> Response:
        """`GET /v1/files/images/{name}.png`: the URL is the permission, and works for `url_seconds`."""
        name = request.path_params["name"]
        link = self.links.read(name.removesuffix(".png")) if name.endswith(".png") else None
        if link is None:
            raise ServerError(404, "The URL of this picture has expired, or never was one.", code="not_found")
        png = await picture_of(self.backend, link.id, link.size if all(link.size) else None)
        headers = {
            "Cache-Control": "private, no-store",
            "Content-Disposition": f'inline; filename="{link.id}.png"',
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        return Response(png, headers=headers, media_type="image/png")

    async def _form(self, request: Request, endpoint: Endpoint) -> Response:
        form = await read_form(request)
        texts: dict[str, Any] = dict(form.fields)
        files = dict(form.files)
        # A file where a text belongs is a mistake; a text where a file belongs is named as missing by its reader.
        for name in set(files) - {"image", "image[]", "mask"}:
            raise invalid(
                f"Invalid '{name[:100]}': no file is expected here.", param=name[:100], code="invalid_type"
            )
        return await self._answer(request, endpoint, Fields(texts, form=True), files)

    async def _answer(
        self, request: Request, endpoint: Endpoint, fields: Fields, files: dict[str, list[File]]
    ) -> Response:
        call = read_call(endpoint, fields, await self.backend.models(), self.options)
        sources = [] if endpoint == "generations" else await read_pictures(call, files, self.options)
        headers = self._ignored(call)
        job = await self.backend.submit(
            call.request,
            sources,
            model=call.model.name,
            previews=call.partial_images > 0,
            owner=request.scope.get(OWNER),
        )
        if call.stream:
            return EventStream(
                self.backend,
                call,
                job,
                ping_seconds=self.options.ping_seconds,
                headers=headers,
                clock=self.clock,
            )
        base = self._base(request)

        def url(drawn: Drawn) -> str:
            return f"{base}{FILES}{self.links.name(FileLink(drawn.id, call.output.size or (0, 0)))}.png"

        async def body() -> dict[str, Any]:
            drawn, contents = await draw(self.backend, call, job, receive=request.receive)
            return answers.images(int(self.clock()), drawn, contents, url)

        try:
            return await timely(
                body(),
                patience=self.options.header_seconds,
                ping=self.options.ping_seconds,
                headers=headers,
            )
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED)

    def _base(self, request: Request) -> str:
        """Address of this server for URLs: the configured one, else the Host header's, which `CheckHost` has checked."""
        if self.options.public_url:
            return self.options.public_url.rstrip("/")
        return f"{request.url.scheme}://{quote(request.headers['host'], safe=':[]')}"

    def _ignored(self, call: Call) -> dict[str, str]:
        """Header that names the fields that were not used; each is logged once."""
        if not call.ignored:
            return {}
        names = [_HEADER_SAFE.sub("?", name[:64]) for name in call.ignored[:_MAX_LISTED]]
        for name in names:
            if name not in self._seen_ignored and len(self._seen_ignored) < 1000:
                self._seen_ignored.add(name)
                log.info("clients send the field %s, which is ignored", name)
        return {"x-ignored-params": ", ".join(names)}


_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_POSTED = re.compile(r"/v1/images/(generations|edits|variations)")
_GOT = re.compile(r"/v1/(models(/.+)?|files/images/[^/]+)")


async def _nothing(request: Request) -> Response:
    """Answer to all other paths, and to other methods, in OpenAI's words."""
    method, path = request.method, request.url.path
    for pattern, allowed in ((_POSTED, "POST"), (_GOT, "GET")):
        if pattern.fullmatch(path):
            raise ServerError(
                405,
                f"Not allowed to {method} on {path[:200]}: give {allowed}.",
                code="method_not_supported",
                headers={"Allow": allowed},
            )
    raise invalid(f"Invalid URL ({method} {path[:200]})", code="unknown_url", status=404)


async def _json(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries, whatever its content type says."""
    data = await request.body()
    body = parse_json(data, None)
    if not isinstance(body, Mapping):
        raise invalid(
            "We could not parse the JSON body of your request. It has to be one JSON object in UTF-8.",
            code="invalid_json",
        )
    return dict(body)
