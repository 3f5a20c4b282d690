"""The page: built files, served with a content security policy that allows this server's own scripts and styles alone.

The source is `page/` at the root of the repository; `npm run build` there writes `files/`. Nothing of it is needed to run.
"""

import functools
import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

FILES = Path(__file__).parent / "files"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""Content type by suffix; files of other suffixes are not served."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Pictures may come from memory (uploads and previews); all else only from this server, and no text becomes markup."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
}


class File(NamedTuple):
    """A built file: its bytes, the same compressed, and its headers."""

    content: bytes
    compressed: bytes
    headers: Mapping[str, str]


@functools.cache
def files() -> Mapping[str, File]:
    """The built files by name, read once. Their names are all that is served: nothing of a request becomes a path."""
    found = {}
    for path in sorted(FILES.iterdir()):
        if path.suffix not in TYPES:
            continue
        content = path.read_bytes()
        hashed = path.name not in ("index.html", "licences.txt")
        found[path.name] = File(
            content,
            gzip.compress(content, 9, mtime=0),
            {
                **HEADERS,
                "Content-Type": TYPES[path.suffix],
                "Cache-Control": "public, max-age=31536000, immutable" if hashed else "no-cache",
                "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            },
        )
    return found


def respond(request: Request, name: str) -> Response:
    """A built file, compressed where the browser takes that; status 304 where it has the file, 404 where there is none."""
    file = files().get(name)
    if file is None:
        return Response("not found", status_code=404, media_type="text/plain", headers=HEADERS)
    if request.headers.get("if-none-match") == file.headers["ETag"]:
        return Response(status_code=304, headers=dict(file.headers))
    encodings = {
        one.partition(";")[0].strip() for one in request.headers.get("accept-encoding", "").split(",")
    }
    if "gzip" in encodings:
        return Response(file.compressed, headers={**file.headers, "Content-Encoding": "gzip"})
    return Response(file.content, headers=dict(file.headers))


async def index(request: Request) -> Response:
    """The page itself."""
    return respond(request, "index.html")


async def asset(request: Request) -> Response:
    """A script, style sheet or icon of the page."""
    return respond(request, str(request.path_params["name"]))


def routes() -> list[BaseRoute]:
    """Routes of the page: `/`, and `/assets/NAME` for its files."""
    return [Route("/", index), Route("/assets/{name}", asset)]
