"""Picture files: opened with guards, cropped, resized, laid out in a grid, and written all or nothing.

The size is read from the file's own header before any decoder runs, so a small file that unfolds to
gigabytes is refused unread. Formats: the PNG specification (W3C), JPEG (ITU-T T.81, annex B) and the
WebP container (RFC 9649).
"""

import io
import math
import os
import secrets
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 64_000_000
MAX_BYTES = 128 * 1024 * 1024

_FORMATS = ("PNG", "JPEG", "WEBP")
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


class PictureError(ValueError):
    """A file that is no usable picture; the message says why and what is accepted."""


def open_picture(source: str | os.PathLike[str] | bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a still PNG, JPEG or WebP picture, turned the way its camera says.

    The result is RGBA if the file has transparency and RGB otherwise. Raises `FileNotFoundError` for a
    missing file and `PictureError` for one that is too large, animated, damaged or of another format.
    """
    name, data = _read(source)
    width, height = _header_size(data, name)
    if width * height > max_pixels:
        raise PictureError(
            f"{name} is {width}x{height}, more than {max_pixels / 1e6:g} megapixels: make it smaller first"
        )
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.size != (width, height):
                raise PictureError(
                    f"{name} is damaged: it says both {width}x{height} and {image.width}x{image.height}"
                )
            if getattr(image, "is_animated", False):
                raise PictureError(f"{name} is animated: save one of its frames as a still picture")
            image.load()
            return _plain(ImageOps.exif_transpose(image))
    except PictureError:
        raise
    # Decoders signal damage by many types; none of them is the caller's mistake, all mean the same.
    except Exception as error:
        raise PictureError(
            f"{name} is damaged and cannot be decoded ({error}): save it again as PNG"
        ) from error


def picture_size(source: str | os.PathLike[str] | bytes) -> tuple[int, int]:
    """(width, height) in pixels as the header tells, without decoding. Raises like `open_picture`."""
    name, data = _read(source)
    return _header_size(data, name)


def flatten(image: Image.Image) -> Image.Image:
    """`image` in RGB; what is transparent shows white."""
    image = _plain(image)
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def centre_crop(image: Image.Image) -> Image.Image:
    """The largest square in the middle."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def middle_square(image: Image.Image, size: int) -> Image.Image:
    """The largest square in the middle, at `size` pixels a side: what CLIP's image processors make of a picture.

    They resize all of it, its longer side to whole pixels, and crop: the edges of the square know what lies beyond.
    """
    short, long = sorted(image.size)
    if long > 16 * short:
        # Resized whole, a long strip would be too large.
        return resize(centre_crop(image), size)
    width, height = (int(size * side / short) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return resize(image, (width, height)).crop((left, top, left + size, top + size))


def resize(
    image: Image.Image, size: int | tuple[int, int], method: Literal["bicubic", "area", "nearest"] = "bicubic"
) -> Image.Image:
    """`image` at `size` (a side, or width and height), antialiased when made smaller."""
    target = (size, size) if isinstance(size, int) else size
    return image if image.size == target else image.resize(target, _FILTERS[method])


def grid(pictures: Sequence[Image.Image], columns: int | None = None, gap: int = 0) -> Image.Image:
    """All pictures on one white sheet, row by row, as near to a square as can be unless `columns` is given."""
    if not pictures:
        raise ValueError("a grid needs at least one picture")
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    rows = math.ceil(len(pictures) / columns)
    width, height = max(p.width for p in pictures) + gap, max(p.height for p in pictures) + gap
    sheet = Image.new("RGB", (columns * width - gap, rows * height - gap), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(flatten(picture), (index % columns * width, index // columns * height))
    return sheet


def write_atomically(path: str | os.PathLike[str], data: bytes, *, force: bool = False) -> Path:
    """Write a file whole or not at all, making its folder. An existing file is kept unless `force`.

    Raises `FileExistsError`, also when another process made the file meanwhile.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if force:
            os.replace(temporary, path)
        else:
            _claim(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _claim(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise FileExistsError(f"{path} exists: choose another name, or ask to overwrite it") from None
    except OSError:
        # No hard links on this file system: reserve the name, then put the file in its place.
        try:
            open(path, "xb").close()
        except FileExistsError:
            raise FileExistsError(f"{path} exists: choose another name, or ask to overwrite it") from None
        os.replace(temporary, path)


def _read(source: str | os.PathLike[str] | bytes) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        name, size = "the picture", len(source)
    else:
        name = str(source)
        if not os.path.isfile(source):
            raise FileNotFoundError(f"there is no file {name}")
        size = os.path.getsize(source)
    if size > MAX_BYTES:
        raise PictureError(
            f"{name} has {size / 2**20:.0f} MiB, more than {MAX_BYTES // 2**20}: make it smaller first"
        )
    return name, source if isinstance(source, bytes) else Path(source).read_bytes()


def _plain(image: Image.Image) -> Image.Image:
    """RGB or RGBA with 8 bits a channel."""
    if image.mode in ("RGB", "RGBA"):
        return image
    if image.mode.startswith("I"):
        # 16-bit greys; Pillow's own conversion clips them instead of scaling.
        return Image.fromarray((np.asarray(image).astype(np.uint32) / 257).round().astype(np.uint8)).convert(
            "RGB"
        )
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _header_size(data: bytes, name: str) -> tuple[int, int]:
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
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
