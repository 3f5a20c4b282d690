"""Picture files: opened with guards, cropped, resized, laid out in a grid, and written all or nothing.

The size is read from the file's own header before any decoder runs, so a small file that unfolds to gigabytes is
refused unread.
"""

import contextlib
import io
import math
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from PIL import Image

from unclip.disk import disk_full, is_full
from unclip.images.errors import PictureError
from unclip.images.headers import header_size
from unclip.images.modes import describe, from_array, normalise
from unclip.images.png import SIGNATURE, Png, lean

MAX_PIXELS = 64_000_000
MAX_BYTES = 128 * 1024 * 1024

_FORMATS = ("PNG", "JPEG", "WEBP")
Filter = Literal["bicubic", "bilinear", "area", "nearest"]
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


PictureFile = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | io.IOBase
"""The path of a file, its bytes, or an open file."""
PixelSource = PictureFile | Image.Image | np.ndarray
"""A file, a PIL image, or an array of pixels. Functions that read one take anything, and refuse the rest with words."""


def open_picture(source: PixelSource | Any, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture from a still PNG, JPEG or WebP file, a PIL image of any mode, or an array of pixels.

    The result is RGBA if it has transparency and RGB otherwise: 8 bits a channel, in sRGB whatever its colour profile,
    and turned the way its camera says (`unclip.images.modes.normalise`). Of a JPEG that holds several pictures, as
    phones write them, the first one is read. Raises `FileNotFoundError` for a missing file and `PictureError` for a
    picture that is too large, animated, damaged or of another type.
    """
    if isinstance(source, Image.Image):
        return _open_image(source, max_pixels)
    if isinstance(source, np.ndarray):
        if source.ndim >= 2:
            _check_size(source.shape[1], source.shape[0], "the picture", max_pixels)
        return from_array(source)
    name, data = read_file(source)
    return decode(data, name, max_pixels=max_pixels)


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture from the bytes of a file, which errors call `name`. Raises like `open_picture`."""
    width, height = header_size(data, name)
    _check_size(width, height, name, max_pixels)
    png = lean(data) if data.startswith(SIGNATURE) else None
    try:
        with Image.open(io.BytesIO(data if png is None else png.data), formats=_FORMATS) as image:
            if image.size != (width, height):
                raise PictureError(
                    f"{name} is damaged: it says both {width}x{height} and {image.width}x{image.height}"
                )
            _check_still(image, name)
            image.load()
            if png is not None:
                _describe(image, png)
            return normalise(image, name)
    except PictureError:
        raise
    # Decoders signal damage by many types; none of them is the caller's mistake, all mean the same.
    except Exception as error:
        raise PictureError(
            f"{name} is damaged and cannot be decoded ({describe(error)}): save it again as PNG"
        ) from error


def _open_image(image: Image.Image, max_pixels: int) -> Image.Image:
    name = "the picture"
    _check_size(*image.size, name, max_pixels)
    _check_still(image, name)
    try:
        image.load()
    except Exception as error:
        raise PictureError(f"{name} ({type(image).__name__}) cannot be decoded: {describe(error)}") from error
    if min(image.size) < 1:
        raise PictureError(f"{name} is {image.width}x{image.height}: it has no pixels")
    return normalise(image, name)


def _describe(image: Image.Image, png: Png) -> None:
    """Give a decoded PNG the profile, the colour space and the transparent colour that its chunks hold."""
    if png.profile is not None:
        image.info["icc_profile"] = png.profile
    if png.cicp is not None:
        image.info["cicp"] = png.cicp
    if png.key is not None:
        image.info["transparency"] = png.key


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PictureError(
            f"{name} is {width}x{height}, more than {max_pixels / 1e6:g} megapixels: make it smaller first"
        )


def _check_still(image: Image.Image, name: str) -> None:
    # Phones put a second picture, such as a map of depths, behind the first: that is no animation.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise PictureError(f"{name} is animated: save one of its frames as a still picture")


def picture_size(source: PictureFile | Any) -> tuple[int, int]:
    """(width, height) in pixels from the header, without decoding. Raises like `open_picture`."""
    name, data = read_file(source)
    return header_size(data, name)


def flatten(image: Image.Image) -> Image.Image:
    """`image` in RGB; what is transparent shows white."""
    image = normalise(image)
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def centre_crop(image: Image.Image) -> Image.Image:
    """The largest square in the middle; of a square, itself."""
    side = min(image.size)
    if image.size == (side, side):
        return image
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def middle_square(image: Image.Image, size: int, method: Filter = "bicubic") -> Image.Image:
    """The largest square in the middle, at `size` pixels a side: what CLIP's image processors make of a picture.

    They resize all of it, its longer side to whole pixels, and crop: the edges of the square know what lies beyond.
    """
    return middle_part(image, size, size, method)


def middle_part(image: Image.Image, width: int, height: int, method: Filter = "bicubic") -> Image.Image:
    """The largest part in the middle that has the shape `width` x `height`, at that size."""
    shape = image.width * height / (image.height * width)
    if not 1 / 16 <= shape <= 16:
        # Resized whole, a long strip would be too large.
        inner = (image.width, max(1, round(image.width * height / width)))
        if shape > 1:
            inner = (max(1, round(image.height * width / height)), image.height)
        return resize(_middle(image, *inner), (width, height), method)
    whole = (width, int(width * image.height / image.width))
    if shape > 1:
        whole = (int(height * image.width / image.height), height)
    return _middle(resize(image, whole, method), width, height)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def resize(image: Image.Image, size: int | tuple[int, int], method: Filter = "bicubic") -> Image.Image:
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

    Raises `FileExistsError`, also when another process made the file meanwhile, and `DiskFull`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A short name of its own: that of the file may be as long as the file system allows.
    temporary = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if is_full(error):
                raise disk_full(path, len(data), what="the file", remedy="make room") from error
            raise
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


def read_file(source: PictureFile | Any) -> tuple[str, bytes]:
    """Name and bytes of a picture's file. Raises `FileNotFoundError` and `PictureError`, naming the type, like `open_picture`."""
    name = "the picture"
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        if os.path.isdir(name):
            raise PictureError(f"{name} is a folder: give a PNG, JPEG or WebP file")
        if not os.path.isfile(name):
            raise FileNotFoundError(f"there is no file {name}")
        with open(name, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    elif callable(getattr(source, "read", None)):
        name, data = _read_open_file(source)
    else:
        raise PictureError(
            f"{name} is a {type(source).__name__}: give the path or the bytes of a file, an open file, a PIL image or a "
            "numpy array"
        )
    if len(data) > MAX_BYTES:
        raise PictureError(f"{name} has more than {MAX_BYTES // 2**20} MiB: make it smaller first")
    if not data:
        raise PictureError(f"{name} is empty (0 bytes), not a PNG, JPEG or WebP picture: save it again")
    return name, data


def _read_open_file(file: Any) -> tuple[str, bytes]:
    """Name and bytes of an open file, from its beginning where it can go there."""
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else "the picture"
    with contextlib.suppress(OSError, AttributeError, ValueError):
        file.seek(0)
    data = file.read(MAX_BYTES + 1)
    if not isinstance(data, bytes):
        raise PictureError(
            f"{name} is a {type(file).__name__} of {type(data).__name__}: open it in mode 'rb'"
        )
    return name, data
