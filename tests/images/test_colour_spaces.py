"""Colour spaces named without a profile: converted as the published matrices say, whatever names them."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from unclip.images import PictureWarning, open_picture

# XYZ (D65) of linear RGB: IEC 61966-2-1 and Adobe RGB (1998), as published; Display P3 of SMPTE EG 432-1; Rec. 2020.
TO_XYZ = {
    "srgb": [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]],
    "adobe": [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]],
    "p3": [[0.48657, 0.26567, 0.19822], [0.22897, 0.69174, 0.07929], [0.0, 0.04511, 1.04394]],
    "rec2020": [[0.63696, 0.14462, 0.16888], [0.26270, 0.67800, 0.05930], [0.0, 0.02807, 1.06099]],
}
PIXELS = np.array(
    [[[200, 100, 50], [40, 180, 90], [128, 128, 128], [90, 60, 200], [230, 220, 210]]], np.uint8
)


def srgb_curve(value):
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def expected(space: str, curve) -> np.ndarray:
    """The pixels in sRGB by the published matrices."""
    linear = curve(PIXELS / 255) @ np.array(TO_XYZ[space]).T @ np.linalg.inv(np.array(TO_XYZ["srgb"])).T
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:33] + b"".join(chunks) + data[33:]


def gama(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def chrm(*values: float) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values)))


ADOBE = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


@pytest.mark.parametrize(
    ("chunks", "space", "curve"),
    [
        ([chunk(b"cICP", bytes([12, 13, 0, 1]))], "p3", srgb_curve),
        ([chunk(b"cICP", bytes([9, 8, 0, 1]))], "rec2020", lambda value: value),
        ([chunk(b"cICP", bytes([1, 4, 0, 1]))], "srgb", lambda value: value**2.2),
        ([gama(1 / 1.8)], "srgb", lambda value: value**1.8),
        ([gama(256 / 563), chrm(*ADOBE)], "adobe", srgb_curve),
        ([gama(0.4), chrm(*P3)], "p3", lambda value: value**2.5),
        # cICP counts before gAMA.
        ([gama(1.0), chunk(b"cICP", bytes([12, 13, 0, 1]))], "p3", srgb_curve),
    ],
)
def test_chunks_that_name_a_colour_space_are_honoured(chunks, space, curve):
    made = np.asarray(open_picture(png(*chunks)), dtype=np.float64)
    assert np.abs(expected(space, curve) - PIXELS).max() > 3
    np.testing.assert_allclose(made, expected(space, curve), atol=1.5)


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [gama(0.45455)],
        [gama(0.45455), chrm(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)],
        [chunk(b"cICP", bytes([1, 13, 0, 1]))],
        # The sRGB chunk counts before gAMA and cHRM, and cHRM means nothing without gAMA.
        [chunk(b"sRGB", b"\0"), gama(1.0), chrm(*ADOBE)],
        [chrm(*ADOBE)],
    ],
)
def test_srgb_by_any_name_changes_no_bit(chunks):
    assert (np.asarray(open_picture(png(*chunks))) == PIXELS).all()


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([chunk(b"cICP", bytes([9, 16, 0, 1]))], "high dynamic range"),
        ([chunk(b"cICP", bytes([9, 18, 0, 1]))], "high dynamic range"),
        ([chunk(b"cICP", bytes([1, 13, 1, 1]))], "cICP 1/13/1/1 is not supported"),
        ([chunk(b"cICP", bytes([1, 13, 0, 0]))], "not supported"),
        ([gama(9.0)], "no exponent"),
        ([gama(0.4), chrm(0.3127, 0.0, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)], "no chromaticities"),
        ([gama(0.4), chrm(0.3127, 0.329, 0.3, 0.3, 0.4, 0.3, 0.5, 0.3)], "on one line"),
    ],
)
def test_spaces_that_cannot_be_converted_are_named(chunks, words):
    with pytest.warns(PictureWarning, match=words):
        made = open_picture(png(*chunks))
    assert (np.asarray(made) == PIXELS).all()


@pytest.mark.parametrize("named", ["ColorSpace", "InteroperabilityIndex"])
@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG"])
def test_adobe_rgb_of_cameras_is_honoured(named, form):
    exif = Image.Exif()
    if named == "ColorSpace":
        exif.get_ifd(0x8769)[0xA001] = 2
    else:
        exif.get_ifd(0x8769)[0xA001] = 0xFFFF
        exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    large = Image.fromarray(PIXELS.repeat(16, 0).repeat(16, 1))
    buffer = io.BytesIO()
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "PNG": {}}[form]
    large.save(buffer, form, exif=exif.tobytes(), **options)
    made = np.asarray(open_picture(buffer.getvalue()), dtype=np.float64)[8:9, 8::16]
    np.testing.assert_allclose(made, expected("adobe", lambda value: value ** (563 / 256)), atol=3)


def test_srgb_of_cameras_changes_no_bit():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 1
    exif.get_ifd(0x8769)[0xA005] = {1: "R98"}
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", exif=exif.tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (np.asarray(open_picture(buffer.getvalue())) == PIXELS).all()
