"""API keys: read from a file or the environment, kept as hashes, compared in constant time."""

import hashlib
import hmac
import logging
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from unclip.errors import RequestError
from unclip.serve.guard.errors import error_response, unauthorised
from unclip.serve.guard.sessions import Sessions
from unclip.serve.guard.wire import cookies, header

log = logging.getLogger(__name__)

MIN_KEY = 16
KEYS_VARIABLE, FILE_VARIABLE = "UNCLIP_API_KEYS", "UNCLIP_API_KEY_FILE"
OWNER = "unclip.owner"
"""Entry of the ASGI scope: the name of the key that a request came with, or None where no key is needed."""
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")


@dataclass(frozen=True)
class Keys:
    """Names and SHA-256 of the keys that open the server; without any, it is open to all who reach it."""

    digests: tuple[tuple[str, bytes], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.digests)

    def owner(self, key: str | bytes) -> str | None:
        """Name of a key; None for a wrong one. All keys are compared whatever the result, each in constant time."""
        data = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
        given, found = hashlib.sha256(data).digest(), None
        for name, digest in self.digests:
            if hmac.compare_digest(given, digest):
                found = name
        return found

    @property
    def names(self) -> frozenset[str]:
        """Names of the keys."""
        return frozenset(name for name, _ in self.digests)

    @classmethod
    def of(cls, lines: Iterable[str]) -> "Keys":
        """Keys of lines `KEY`, `NAME:KEY` or `NAME:sha256:HEX`; blank lines and those that begin with # are passed over.

        Raises `RequestError`, which does not quote the key.
        """
        found: dict[str, bytes] = {}
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            name, digest = _entry(text, number)
            if name in found:
                raise RequestError(f"line {number} of the API keys has the name {name!r} again")
            found[name] = digest
        return cls(tuple(found.items()))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, environment: Mapping[str, str] = os.environ
    ) -> "Keys":
        """Keys of a file, else of the file that `UNCLIP_API_KEY_FILE` names, and those in `UNCLIP_API_KEYS`.

        Never from a command line, which every user of the machine can read.
        """
        lines: list[str] = []
        file = path or environment.get(FILE_VARIABLE)
        if file:
            lines += _read(Path(file))
            if not Keys.of(lines):
                raise RequestError(f"{file} has no API key: write one on a line, or do not give the file")
        lines += re.split(r"[,\n]", environment.get(KEYS_VARIABLE, ""))
        return cls.of(lines)


def _read(path: Path) -> list[str]:
    try:
        text, mode = path.read_text(encoding="utf-8"), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the API keys {path} cannot be read: {error}") from error
    if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("others can read the API keys in %s: chmod 600 it", path)
    return text.splitlines()


def _entry(text: str, number: int) -> tuple[str, bytes]:
    name, colon, key = text.partition(":")
    if not colon:
        name, key = f"key-{number}", text
    if not _NAME.fullmatch(name):
        raise RequestError(f"line {number} of the API keys has a bad name: use letters, digits and _.@-")
    if key.startswith("sha256:"):
        try:
            digest = bytes.fromhex(key.removeprefix("sha256:"))
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise RequestError(f"line {number} of the API keys has no SHA-256 of 64 hexadecimal digits")
        return name, digest
    if len(key) < MIN_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise RequestError(
            f"line {number} of the API keys has a key that is too short or not plain: give {MIN_KEY} or more ASCII "
            'letters and digits, such as those of `python -c "import secrets; print(secrets.token_urlsafe(32))"`'
        )
    return name, hashlib.sha256(key.encode()).digest()


class RequireKey:
    """ASGI middleware that lets requests in that carry a key, or a session that a key has opened.

    `public` are paths that need none; one that ends in `/` stands for all below it.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, *, sessions: Sessions | None = None, public: Iterable[str] = ()
    ):
        self.app, self.keys, self.sessions = app, keys, sessions
        self.exact = frozenset(path for path in public if not path.endswith("/") or path == "/")
        self.below = tuple(path for path in public if path.endswith("/") and path != "/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its owner in the scope, or answer 401."""
        if scope["type"] != "http" or not self.keys:
            await self.app(scope, receive, send)
            return
        owner = self._owner(scope)
        if owner is None and not self._is_public(scope["path"]):
            given = header(scope, b"authorization")
            error = (
                unauthorised(
                    "Incorrect API key provided. Give one of the server's keys: its operator has them.",
                    "invalid_api_key",
                )
                if given
                else unauthorised(
                    "You didn't provide an API key. Give one in the Authorization header (Authorization: Bearer KEY)."
                )
            )
            await error_response(error)(scope, receive, send)
            return
        await self.app({**scope, OWNER: owner}, receive, send)

    def _is_public(self, path: str) -> bool:
        return path in self.exact or path.startswith(self.below)

    def _owner(self, scope: Scope) -> str | None:
        given = header(scope, b"authorization")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() == b"bearer":
            return self.keys.owner(key.strip())
        if self.sessions is None:
            return None
        owner = self.sessions.owner(cookies(scope).get(self.sessions.name, ""))
        return owner if owner in self.keys.names else None
