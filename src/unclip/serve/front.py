"""The whole server: our own API and the compatible one, behind the guards."""

import contextlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from starlette.applications import Starlette

from unclip.config import Param, check
from unclip.errors import RequestError
from unclip.images.files import write_atomically
from unclip.serve.app import create_app
from unclip.serve.guard.binding import check_binding
from unclip.serve.guard.guarded import body_limits, guards
from unclip.serve.guard.hosts import allowed_hosts, is_any_address
from unclip.serve.guard.keys import Keys
from unclip.serve.guard.rate import Buckets
from unclip.serve.guard.sessions import Sessions, login_routes
from unclip.serve.openai.adapter import ServiceBackend
from unclip.serve.openai.openapi import document_route
from unclip.serve.openai.options import Options
from unclip.serve.openai.routes import OpenAI
from unclip.serve.settings import Settings

SECRET_VARIABLE = "UNCLIP_SECRET"


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may reach the server, how often, and under which names."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    key_file: str | None = None
    """File of API keys; keys of the environment are read as well (`unclip.serve.guard.keys`)."""
    insecure: bool = False
    """Whether a public address needs no key."""
    hosts: tuple[str, ...] = ()
    """Further host names of the server."""
    origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may use the server."""
    public_url: str | None = None
    """Address that clients know the server by, such as that of a proxy."""
    rate: Annotated[
        float | None, Param("requests for pictures a minute and key; no limit if not given", gt=0)
    ] = None
    burst: Annotated[
        int | None, Param("requests that may come at once; those of a minute if not given", ge=1)
    ] = None
    aliases: dict[str, str] = field(default_factory=dict)
    """Further names of models in the compatible API, beside dall-e-2."""
    strict: bool = False
    """Whether the compatible API refuses what `dall-e-2` refused."""

    def __post_init__(self) -> None:
        """Raise `RequestError` for a value out of range, or a `public_url` that is none."""
        check(self, RequestError)
        if self.public_url is not None and not self.public_url.startswith(("http://", "https://")):
            raise RequestError(f"the public URL {self.public_url!r} is none: give it as https://example.org")


def front_app(
    settings: Settings, access: Access | None = None, *, keys: Keys | None = None, **more: Any
) -> Starlette:
    """The application behind its guards; `keys` are those of `access` and the environment if not given.

    Raises `RequestError` for an address that others can reach while no key is set.
    """
    access = access or Access()
    keys = Keys.load(access.key_file) if keys is None else keys
    check_binding(access.host, keys, allow_public=access.insecure)
    for alias, target in access.aliases.items():
        if target and target not in settings.models:
            raise RequestError(f"{alias!r} stands for {target!r}, which is no model of this server")
    secret = read_secret(Path(settings.folder))
    sessions = Sessions(secret)
    options = Options(
        strict=access.strict,
        aliases={"dall-e-2": ""} | access.aliases,
        public_url=access.public_url,
        secret=secret,
        max_picture=settings.max_upload,
        max_side=settings.max_side,
    )
    api = OpenAI(ServiceBackend(lambda: app.state.service), options, **more)
    buckets = None if access.rate is None else Buckets(access.rate, access.burst)
    app = create_app(
        settings,
        routes=[*login_routes(keys, sessions), document_route(api), *api.routes],
        middleware=guards(
            keys=keys,
            sessions=sessions,
            hosts=allowed_hosts(access.host, access.hosts, access.public_url),
            origins=access.origins,
            any_address=is_any_address(access.host),
            buckets=buckets,
            limits=body_limits(settings.max_upload),
        ),
        key_required=bool(keys),
    )
    return app


def read_secret(folder: Path) -> bytes:
    """The secret that signs URLs and sessions: `UNCLIP_SECRET`, else 32 random bytes in the folder, made once.

    Servers that share one address need the same; without it, a URL made by one is unknown to the others.
    """
    given = os.environ.get(SECRET_VARIABLE)
    if given:
        if len(given) < 16:
            raise RequestError(f"{SECRET_VARIABLE} has {len(given)} characters: give 16 or more")
        return given.encode()
    path = folder / "secret"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Another server that starts now may make it first.
        with contextlib.suppress(FileExistsError):
            write_atomically(path, secrets.token_bytes(32))
        path.chmod(0o600)
    data = path.read_bytes()
    if len(data) < 16:
        raise RequestError(f"{path} is damaged: remove it; URLs and sessions of before end with it")
    return data
