"""Decoding pictures from data that nobody vouches for: formats, bytes and pixels are limited before any decoding."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

#: File name extensions (lower case, without dot) that count as pictures.
EXTENSIONS = ("png", "jpg", "jpeg", "webp")
_FORMATS = ("PNG", "JPEG", "WEBP")

#: 64 megapixels: four bytes a pixel make 256 MiB.
MAX_PIXELS = 64 * 2**20
MAX_BYTES = 128 * 2**20


def decode(data: bytes, size: int | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """PNG, JPEG or WebP bytes to RGB uint8 (3, h, w) on white.

    With `size` the largest centred square is resized to (3, size, size): box averaging for whole factors, else
    antialiased bicubic. The size in the header is checked before pixels are decoded. Raises ValueError saying why.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes are more than the {MAX_BYTES} allowed")
    try:
        with warnings.catch_warnings():
            # Pillow's own limit warns below ours; corrupt EXIF and the like must not stop a run either.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise ValueError(f"{width} x {height} pixels are more than the {max_pixels} allowed")
                rgb = _on_white(ImageOps.exif_transpose(picture))
    except Image.UnidentifiedImageError as error:
        raise ValueError("not a PNG, JPEG or WebP picture") from error
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be decoded: {error}") from error
    if size is not None:
        rgb = square(rgb, size)
    return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        canvas = Image.new("RGBA", picture.size, "white")
        canvas.alpha_composite(picture)
        picture = canvas
    return picture.convert("RGB")


def square(picture: Image.Image, size: int) -> Image.Image:
    """The largest centred square of an RGB picture, resized to size x size."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    if picture.width != picture.height:
        picture = picture.crop((left, top, left + side, top + side))
    if side == size:
        return picture
    whole = side % size == 0
    return picture.resize((size, size), Image.Resampling.BOX if whole else Image.Resampling.BICUBIC)
