"""Sizes of pictures, read from the headers of their files before any decoder runs.

Formats: the PNG specification (W3C), JPEG (ITU-T T.81, annex B) and the WebP container (RFC 9649).
"""

import struct

from unclip.images.errors import PictureError
from unclip.images.png import SIGNATURE


def header_size(data: bytes, name: str) -> tuple[int, int]:
    """(width, height) from the header of a file. Raises `PictureError` for a damaged file, and one of another format."""
    try:
        if data.startswith(SIGNATURE):
            size = _png_size(data)
        elif data.startswith(b"\xff\xd8\xff"):
            size = _jpeg_size(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            size = _webp_size(data)
        else:
            raise PictureError(f"{name} is not a PNG, JPEG or WebP picture: save it as one of these")
    except (struct.error, IndexError) as error:
        raise PictureError(f"{name} is damaged: it ends within its header; save it again as PNG") from error
    if min(size) < 1:
        raise PictureError(f"{name} is damaged: its header says {size[0]}x{size[1]} pixels")
    return size


def _png_size(data: bytes) -> tuple[int, int]:
    return struct.unpack_from(">II", data, 16)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    # Walk the segments to the frame header: SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC).
    position = 2
    while True:
        if data[position] != 0xFF:
            return 0, 0
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return (int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1)
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0
