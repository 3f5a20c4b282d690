"""URLs of pictures that expire: signed, so that nothing has to be kept about them."""

import base64
import binascii
import hashlib
import hmac
import re
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

_LAYOUT = struct.Struct(">16sHHI")
_MAC = 16
_TOKEN = re.compile(r"[A-Za-z0-9_-]{54}")


class FileLink(NamedTuple):
    """A picture, and the size in which it is given out."""

    id: str
    """Its 32 hexadecimal digits."""
    size: tuple[int, int]
    """Width and height in pixels; (0, 0) is the picture's own."""


class Links:
    """Makes and reads the names in URLs of pictures. `clock` is Unix time."""

    def __init__(self, secret: bytes, *, seconds: float = 3600.0, clock: Callable[[], float] = time.time):
        self._key = hashlib.sha256(b"file\0" + secret).digest()
        self.seconds, self.clock = seconds, clock

    def name(self, link: FileLink) -> str:
        """Name of 54 characters that nobody can guess: 128 bits of it are a signature."""
        end = min(int(self.clock() + self.seconds), 0xFFFF_FFFF)
        data = _LAYOUT.pack(bytes.fromhex(link.id), *link.size, end)
        return base64.urlsafe_b64encode(data + self._mac(data)).decode().rstrip("=")

    def read(self, name: str) -> FileLink | None:
        """What a name stands for; None for one that has expired, or was not made here."""
        if not _TOKEN.fullmatch(name):
            return None
        try:
            data = base64.urlsafe_b64decode(name + "==")
        except (binascii.Error, ValueError):
            return None
        data, mac = data[: _LAYOUT.size], data[_LAYOUT.size :]
        if not hmac.compare_digest(mac, self._mac(data)):
            return None
        id, width, height, end = _LAYOUT.unpack(data)
        return FileLink(id.hex(), (width, height)) if self.clock() < end else None

    def _mac(self, data: bytes) -> bytes:
        return hmac.new(self._key, data, hashlib.sha256).digest()[:_MAC]
