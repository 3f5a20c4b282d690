"""Chunks of PNG files: text within bounds, the colour profile, and the transparent colour (PNG specification, W3C).

Pillow refuses a file whose compressed text or profile unpacks to more than a megabyte, though its pixels are sound. So
such chunks are taken out before Pillow sees the file, and no chunk is unpacked further than its bound.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 1 << 20
"""Bytes to which one text chunk may unpack."""
MAX_UNPACKED = 16 << 20
"""Bytes that are unpacked of all text chunks of a file together."""
MAX_PROFILE = 8 << 20
"""Bytes of a colour profile."""
_GREY, _RGB = 0, 2


class Text(NamedTuple):
    """Text of a PNG by keyword, and the keywords of chunks that are too large or damaged."""

    found: dict[str, str]
    skipped: tuple[str, ...]


class Png(NamedTuple):
    """A PNG without the chunks that Pillow should not read."""

    data: bytes
    profile: bytes | None
    """ICC profile; empty where there is one that is too large or damaged."""
    key: int | tuple[int, ...] | None
    """The colour that is transparent, on the scale of the pixels that Pillow decodes."""
    cicp: bytes | None
    """Code points of the colour space (ITU-T H.273)."""


def read_text(data: bytes) -> Text:
    """Text chunks of a PNG. Of chunks with the same keyword the last one counts."""
    found, skipped, budget = {}, [], MAX_UNPACKED
    for kind, start, end in chunks(data):
        if kind in _TEXT:
            keyword, text, cost = _read_text(kind, data[start:end], budget)
            budget -= cost
            if text is None:
                skipped.append(keyword)
            else:
                found[keyword] = text
    return Text(found, tuple(skipped))


def lean(data: bytes) -> Png:
    """A PNG without its profile and without text that is too large or damaged."""
    cuts, profile, key, cicp, budget = [], None, None, None, MAX_UNPACKED
    depth, colour = (data[24], data[25]) if len(data) > 25 else (8, _RGB)
    for kind, start, end in chunks(data):
        body = data[start:end] if kind in (*_TEXT, b"iCCP", b"tRNS", b"cICP") else b""
        if kind == b"iCCP":
            cuts.append((start - 8, end + 4))
            profile = _profile(body)
        elif kind == b"cICP":
            cicp = body
        elif kind == b"tRNS" and colour in (_GREY, _RGB):
            key = _key(body, depth, colour)
        elif kind in _TEXT:
            _, text, cost = _read_text(kind, body, budget)
            budget -= cost
            if text is None:
                cuts.append((start - 8, end + 4))
    return Png(_without(data, cuts), profile, key, cicp)


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the body of each chunk; the last one may be cut off by the end of the file."""
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position + 8, position + 8 + length
        if kind == b"IEND":
            return
        position += 12 + length


_TEXT = (b"tEXt", b"zTXt", b"iTXt")


def _read_text(kind: bytes, body: bytes, budget: int) -> tuple[str, str | None, int]:
    """Keyword, text and number of unpacked bytes of a text chunk; no text where it is too large or damaged."""
    head, _, rest = body.partition(b"\0")
    keyword = head[:79].decode("latin-1")
    packed, encoding = kind == b"zTXt", "latin-1"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        packed, encoding = rest[:1] == b"\1", "utf-8"
        rest = rest[2:].split(b"\0", 2)[-1]
    cost = 0
    if packed:
        if budget <= 0:
            return keyword, None, 0
        rest, cost = unpack(rest, MAX_TEXT)
    if rest is None or len(rest) > MAX_TEXT:
        return keyword, None, cost
    try:
        return keyword, rest.decode(encoding), cost
    except UnicodeDecodeError:
        return keyword, None, cost


def unpack(packed: bytes, most: int) -> tuple[bytes | None, int]:
    """A zlib stream unpacked, and how many bytes were; None where it is longer than `most`, or damaged."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(packed, most + 1)
    except zlib.error:
        return None, most
    return (plain if stream.eof and len(plain) <= most else None), len(plain)


def _profile(body: bytes) -> bytes:
    _, _, rest = body.partition(b"\0")
    return unpack(rest[1:], MAX_PROFILE)[0] or b""


def _key(body: bytes, depth: int, colour: int) -> int | tuple[int, ...] | None:
    """Transparent colour. Pillow decodes greys of 1, 2 and 4 bits to 0 .. 255, and RGB of 16 bits to its upper 8."""
    count = 3 if colour == _RGB else 1
    if len(body) < 2 * count:
        return None
    values = struct.unpack_from(f">{count}H", body)
    if colour == _RGB:
        return tuple(value >> 8 if depth == 16 else value & 0xFF for value in values)
    return values[0] if depth == 16 else (values[0] & (1 << depth) - 1) * 255 // ((1 << depth) - 1)


def _without(data: bytes, cuts: list[tuple[int, int]]) -> bytes:
    if not cuts:
        return data
    kept, position = [], 0
    for start, end in cuts:
        kept.append(data[position:start])
        position = end
    return b"".join([*kept, data[position:]])
