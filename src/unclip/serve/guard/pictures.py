"""Given pictures: the header is checked before any decoder runs, then the pixels alone are kept, as a plain PNG."""

import asyncio
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from PIL import Image

from unclip.images.errors import PictureError
from unclip.images.files import decode
from unclip.images.headers import header_size

T = TypeVar("T")

MAX_SIDE = 4096
DECODERS = 2
"""Pictures that are decoded at a time: each takes up to 16 bytes a pixel."""
PATIENCE = 30.0
"""Seconds that decoding may take, waiting included."""
_threads = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")


class Given(NamedTuple):
    """A picture that was checked: its pixels, RGB or RGBA of 8 bits, and nothing else of the file."""

    image: Image.Image

    @property
    def png(self) -> bytes:
        """PNG without any metadata; what lies under transparent pixels is kept."""
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()


def check_header(data: bytes, name: str, *, max_side: int = MAX_SIDE) -> tuple[int, int]:
    """(width, height) of a PNG, JPEG or WebP file. Raises `PictureError` for another format or a side beyond `max_side`.

    Nothing is unpacked: a small file that unfolds to gigabytes is refused by the size it states, and one that states
    another size than it has is refused by the decoder, which reads no further.
    """
    width, height = header_size(data, name)
    if max(width, height) > max_side:
        raise PictureError(f"{name} is {width}x{height}: the longest side may have {max_side} pixels")
    return width, height


async def read_picture(data: bytes, name: str, *, max_side: int = MAX_SIDE) -> Given:
    """A given picture, decoded on a thread. Raises `PictureError` for anything but a still picture of a sensible size."""
    check_header(data, name, max_side=max_side)
    return Given(await decoding(lambda: decode(data, name, max_pixels=max_side * max_side), name))


async def decoding(work: Callable[[], T], name: str = "the picture") -> T:
    """Result of `work`, run on one of the decoders' threads. Raises `PictureError` where it takes too long."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE):
            return await loop.run_in_executor(_threads, work)
    except TimeoutError:
        raise PictureError(f"{name} takes more than {PATIENCE:g} s to decode: make it smaller") from None
