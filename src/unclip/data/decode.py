"""Decoding the pictures of a data set: guarded, flattened on white, square, channels first."""

import numpy as np

from unclip.images import MAX_PIXELS, centre_crop, flatten, open_picture, resize

#: File name extensions (lower case, without dot) that count as pictures.
EXTENSIONS = ("png", "jpg", "jpeg", "webp")
#: The longest member of a tar that is read into memory.
MAX_BYTES = 128 * 2**20


def decode(data: bytes, size: int | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """PNG, JPEG or WebP bytes to RGB uint8 (3, h, w) on white.

    With `size` the largest centred square is resized to (3, size, size): by averaging for whole factors, else antialiased
    bicubic. The size in the header is checked before pixels are decoded. Raises ValueError saying why.
    """
    picture = flatten(open_picture(data, max_pixels=max_pixels))
    if size is not None:
        picture = centre_crop(picture)
        picture = resize(picture, size, "area" if picture.width % size == 0 else "bicubic")
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
