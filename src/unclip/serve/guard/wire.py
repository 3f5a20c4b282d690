"""Headers of an ASGI scope: single values, cookies, and the method's safety."""

from starlette.types import Scope

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""


def header(scope: Scope, name: bytes) -> bytes:
    """Value of a header; empty where it is absent, or given more than once, which nobody sends in good faith."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0] if len(found) == 1 else b""


def headers(scope: Scope, name: bytes) -> list[bytes]:
    """All values of a header."""
    return [value for key, value in scope["headers"] if key == name]


def cookies(scope: Scope) -> dict[str, str]:
    """Cookies of a request by name; the first of several with one name."""
    found: dict[str, str] = {}
    for value in headers(scope, b"cookie"):
        for pair in value.decode("latin-1").split(";"):
            name, _, text = pair.strip().partition("=")
            found.setdefault(name, text)
    return found
