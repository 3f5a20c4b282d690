"""Where the server may listen: loopback for all, a public address only with a key or an explicit flag."""

import ipaddress

from unclip.errors import RequestError
from unclip.serve.guard.keys import FILE_VARIABLE, KEYS_VARIABLE, Keys


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address that a server listens on."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def check_binding(host: str, keys: Keys, *, allow_public: bool = False) -> None:
    """Raise `RequestError` for an address that others can reach while no key is set, unless `allow_public`.

    A name other than localhost counts as public: what it resolves to may change. The empty name is every address.
    """
    if keys or allow_public or is_loopback(host):
        return
    raise RequestError(
        f"{host or 'every address'!r} can be reached from other machines, and no API key is set: anyone could draw, read "
        f"and delete pictures. Set a key ({KEYS_VARIABLE}, or a file in {FILE_VARIABLE}), listen on 127.0.0.1, or "
        "allow it (--insecure-no-auth)"
    )
