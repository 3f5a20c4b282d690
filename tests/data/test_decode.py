"""Decoding: sizes are checked first, transparency is white, resizing averages, and odd files are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from unclip.data.decode import decode
from unclip.images import MAX_PIXELS


def encode(array: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, kind) if mode else Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_layout_and_values():
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode(array)), array.transpose(2, 0, 1))


def test_whole_factors_average():
    array = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    expected = array.reshape(4, 4, 4, 4, 3).mean(axis=(1, 3))
    assert np.abs(decode(encode(array), 4).transpose(1, 2, 0) - expected).max() <= 1


def test_centre_crop():
    array = np.zeros((4, 12, 3), dtype=np.uint8)
    array[:, 4:8] = 255
    assert decode(encode(array), 4).min() == 255


def test_transparent_is_white():
    array = np.zeros((3, 3, 4), dtype=np.uint8)
    array[0, 0] = (10, 20, 30, 255)
    picture = decode(encode(array))
    assert picture[:, 0, 0].tolist() == [10, 20, 30]
    assert picture[:, 2, 2].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_other_formats(kind):
    assert decode(encode(np.full((8, 8, 3), 90, dtype=np.uint8), kind)).shape == (3, 8, 8)


def test_grey_and_16_bit():
    assert decode(encode(np.full((2, 2), 77, dtype=np.uint8)))[:, 0, 0].tolist() == [77] * 3
    assert decode(encode(np.full((2, 2), 77 * 257, dtype=np.uint16)))[:, 0, 0].tolist() == [77] * 3


def test_bomb_is_refused_by_its_header():
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(ValueError, match="megapixels"):
        decode(png_header(side, side))
    with pytest.raises(ValueError, match="megapixels"):
        decode(png_header(2**31 - 1, 2**31 - 1))


@pytest.mark.parametrize("data", [b"", b"not a picture", b"GIF89a" + bytes(20), b"\x89PNG\r\n\x1a\n"])
def test_not_a_picture(data):
    with pytest.raises(ValueError, match=r"PNG, JPEG or WebP|header"):
        decode(data)


def test_truncated_file():
    data = encode(np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode(data[: len(data) // 2])
