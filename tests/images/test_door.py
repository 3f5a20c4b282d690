"""One door for pictures: every way in gives the same pixels, every mode and profile its colours, the rest one line."""

import hashlib
import io
import math
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from unclip.data.decode import decode
from unclip.generate.sources import read_source
from unclip.images import PictureError, PictureWarning, open_picture, read_provenance, read_text

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def noise(width: int = 9, height: int = 7, channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: list[bytes], width: int, depth: int, colour: int, *more: bytes) -> bytes:
    """A PNG of packed rows, with `more` chunks before its pixels."""
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return SIGNATURE + chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def with_chunks(data: bytes, *more: bytes) -> bytes:
    """A PNG with chunks added behind its header."""
    return data[:33] + b"".join(more) + data[33:]


# Ways in


@pytest.mark.parametrize("channels", [3, 4])
def test_every_way_in_gives_the_same_picture(tmp_path, channels):
    pixels = noise(channels=channels)
    image = Image.fromarray(pixels)
    data = encoded(image)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    buffer = io.BytesIO(data)
    buffer.seek(0, os.SEEK_END)  # as a program leaves it that has just written
    with open(path, "rb") as file:
        ways = [
            path,
            str(path),
            data,
            bytearray(data),
            memoryview(data),
            buffer,
            file,
            image,
            Image.open(path),
            pixels,
        ]
        sources = [read_source(way) for way in ways]
    assert {source.sha256 for source in sources} == {sources[0].sha256}
    assert np.array_equal(np.asarray(sources[0].image), pixels)


def test_the_hash_is_that_of_version_0_1():
    image = Image.fromarray(noise())
    head = b"RGB 9x7\n"
    assert read_source(image).sha256 == hashlib.sha256(head + image.tobytes()).hexdigest()
    assert read_source(image).image is image


def test_arrays_of_all_types_hold_the_same_picture():
    pixels = noise(channels=4)
    expected = np.asarray(open_picture(pixels))
    for array in (
        pixels.astype(np.uint16) * 257,
        pixels / 255,
        (pixels / 255).astype(np.float32),
        pixels[::-1][::-1],
    ):
        assert np.array_equal(np.asarray(open_picture(array)), expected)
    grey = noise(channels=1)
    for array in (grey, grey[..., None], grey / 255.0):
        opened = open_picture(array)
        assert (opened.mode, opened.size) == ("RGB", (9, 7))
        assert np.array_equal(np.asarray(opened)[..., 1], grey)
    assert np.asarray(open_picture(np.eye(3, dtype=bool)))[..., 0].tolist() == (np.eye(3) * 255).tolist()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (5, "is a int"),
        (None, "is a NoneType"),
        (["a.png"], "is a list"),
        (io.StringIO("text"), "StringIO of str: open it in mode 'rb'"),
        (b"", "is empty"),
        (io.BytesIO(), "is empty"),
        (np.zeros((4, 4), dtype=np.int64), r"int64 with the shape \(4, 4\)"),
        (np.zeros((3, 4, 8)), r"float64 with the shape \(3, 4, 8\)"),
        (np.zeros((4, 4, 2), dtype=np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4), dtype=np.uint8), r"shape \(0, 4\)"),
        (np.zeros(4, dtype=np.uint8), r"shape \(4,\)"),
        (np.array([[0.0, math.nan]]), "not finite"),
        (np.array([[0.0, math.inf]]), "not finite"),
        (np.array([[0.0, 255.0]]), "holds 0 to 255"),
        (np.array([[-1.0, 1.0]]), "holds -1 to 1"),
        (np.array([["a"]]), "<U1"),
        (np.array([[None]]), "object"),
        (np.broadcast_to(np.uint8(0), (10_000, 10_000)), "10000x10000, more than 64 megapixels"),
        (Image.new("RGB", (0, 4)), "0x4"),
        (Image.fromarray(np.array([[-3, 4]], dtype=np.int32)), "mode I with values from -3 to 4"),
        (Image.fromarray(np.array([[0, 65536]], dtype=np.int32)), "mode I with values from 0 to 65536"),
        (
            Image.fromarray(np.array([[0, math.nan]], dtype=np.float32)),
            "mode F with numbers that are not finite",
        ),
        (Image.fromarray(np.array([[0, 256]], dtype=np.float32)), "mode F with values from 0 to 256"),
        (Image.fromarray(np.array([[0, 0.5]], dtype=np.float32)), "mode F with values from 0 to 1"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(given, words):
    with pytest.raises(PictureError, match=words) as caught:
        read_source(given)
    assert "\n" not in str(caught.value)


def test_folders_and_closed_images_are_refused(tmp_path):
    with pytest.raises(PictureError, match="is a folder"):
        open_picture(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(noise())))
    closed = Image.open(tmp_path / "a.png")
    closed.close()
    with pytest.raises(PictureError, match=r"PngImageFile\) cannot be decoded"):
        open_picture(closed)
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    gif = io.BytesIO(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    with pytest.raises(PictureError, match="animated"):
        open_picture(Image.open(gif))


# Modes

COLOUR, CLEAR = (200, 100, 50), (200, 100, 50, 64)


def test_every_mode_gives_its_colours():
    """Each mode, made by hand, against the colours that its definition says."""
    grey8 = Image.new("L", (2, 1), 77)
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, *COLOUR])
    see_through = palette.copy()
    see_through.info["transparency"] = b"\xff\x40"
    premultiplied = Image.new("RGBA", (2, 1), (128, 0, 255, 255)).convert("RGBa")
    expected = {
        "1": (Image.new("1", (2, 1), 1), (255, 255, 255)),
        "L": (grey8, (77, 77, 77)),
        "LA": (Image.new("LA", (2, 1), (77, 9)), (77, 77, 77, 9)),
        "La": (Image.new("LA", (2, 1), (77, 255)).convert("La"), (77, 77, 77, 255)),
        "P": (palette, COLOUR),
        "P transparent": (see_through, CLEAR),
        "PA": (see_through.convert("PA"), CLEAR),
        "RGB": (Image.new("RGB", (2, 1), COLOUR), COLOUR),
        "RGBA": (Image.new("RGBA", (2, 1), CLEAR), CLEAR),
        "RGBa": (premultiplied, (128, 0, 255, 255)),
        "RGBX": (Image.new("RGB", (2, 1), COLOUR).convert("RGBX"), COLOUR),
        "I;16": (Image.fromarray(np.full((1, 2), 77 * 257, dtype=np.uint16)), (77, 77, 77)),
        "I;16B": (Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 77 * 257, 77 * 257)), (77, 77, 77)),
        "I": (Image.new("I", (2, 1), 77 * 257), (77, 77, 77)),
        "F": (Image.new("F", (2, 1), 77.4), (77, 77, 77)),
        "CMYK": (Image.new("CMYK", (2, 1), (0, 255, 255, 0)), (255, 0, 0)),
        "YCbCr": (Image.new("YCbCr", (2, 1), (77, 128, 128)), (77, 77, 77)),
        "HSV": (Image.new("HSV", (2, 1), (0, 255, 255)), (255, 0, 0)),
        "LAB": (Image.new("LAB", (2, 1), (255, 128, 128)), (255, 255, 255)),
    }
    for name, (image, colour) in expected.items():
        opened = open_picture(image)
        assert opened.mode == ("RGB" if len(colour) == 3 else "RGBA"), name
        assert np.abs(np.subtract(opened.getpixel((1, 0)), colour)).max() <= (1 if name == "LAB" else 0), name


def test_every_mode_that_pillow_knows_is_read_or_refused_by_name():
    for mode in Image.MODES:
        image = Image.new(mode, (3, 2))
        try:
            opened = open_picture(image)
        except PictureError as error:
            assert mode in str(error)  # noqa: PT017
        else:
            assert opened.mode in ("RGB", "RGBA")
            assert opened.size == (3, 2)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_transparent_at_every_depth(depth):
    """Two greys of a PNG: the darkest, and the brightest, which its tRNS chunk makes transparent."""
    most = (1 << depth) - 1
    row = (
        struct.pack(">HH", 0, most)
        if depth == 16
        else bytes([0, most])
        if depth == 8
        else bytes([most << 8 - 2 * depth])
    )
    data = png([row], 2, depth, 0, chunk(b"tRNS", struct.pack(">H", most)))
    opened = open_picture(data)
    assert np.asarray(opened).tolist() == [[[0, 0, 0, 255], [255, 255, 255, 0]]]


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_transparent(depth):
    unit = 257 if depth == 16 else 1
    form = ">6H" if depth == 16 else ">6B"
    key = struct.pack(">3H", *(value * unit for value in COLOUR))
    row = struct.pack(form, *(value * unit for value in (*COLOUR, 1, 2, 3)))
    opened = open_picture(png([row], 2, depth, 2, chunk(b"tRNS", key)))
    assert np.asarray(opened).tolist() == [[[*COLOUR, 0], [1, 2, 3, 255]]]
    # A PIL image says the same by its `info`; where the colour does not occur, nothing is transparent.
    image = Image.new("RGB", (2, 1), COLOUR)
    image.info["transparency"] = (9, 9, 9)
    assert open_picture(image).mode == "RGB"
    image.info["transparency"] = COLOUR
    assert open_picture(image).getpixel((0, 0)) == (*COLOUR, 0)


def test_orientation_is_applied_once_whatever_the_way_in():
    pixels = noise(5, 3)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(pixels), exif=exif)
        turned = {
            1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.swapaxes(0, 1),
            6: np.rot90(pixels, -1), 7: np.rot90(pixels, 2).swapaxes(0, 1), 8: np.rot90(pixels),
        }[orientation]  # fmt: skip
        for given in (data, Image.open(io.BytesIO(data))):
            once = read_source(given)
            assert np.array_equal(np.asarray(once.image), turned)
            assert read_source(once.image).sha256 == once.sha256


def test_damaged_exif_is_passed_over_with_a_warning():
    data = with_chunks(encoded(Image.fromarray(noise())), chunk(b"eXIf", b"MM\0\x2a\xff\xff\xff\xffgarbage"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(np.asarray(open_picture(data)), noise())


# Profiles


def matrix_profile(primaries: np.ndarray, gamma: float) -> bytes:
    """ICC v2 profile of an RGB space with D50 primaries as rows of XYZ and one gamma."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {
        b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249),
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78),
    }
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0\0\0\0"
    for name, row in zip((b"r", b"g", b"b"), primaries):
        tags[name + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*row)
        tags[name + b"TRC"] = curve
    offset, table, bodies = 132 + 12 * len(tags), b"", b""
    for name, body in tags.items():
        body += bytes(-len(body) % 4)
        table += name + struct.pack(">II", offset + len(bodies), len(body))
        bodies += body
    total = 132 + len(table) + len(bodies)
    head = struct.pack(">I4sI4s4s4s", total, b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += (
        struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249) + bytes(48)
    )
    return head + struct.pack(">I", len(tags)) + table + bodies


ADOBE = np.array([[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]])
"""Adobe RGB (1998), section 4.3.6: its primaries adapted to D50."""
SRGB = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])


def in_srgb(colour: tuple[int, ...], primaries: np.ndarray = ADOBE) -> np.ndarray:
    """Colours of sRGB, by the definitions of both spaces alone; the other has Adobe RGB's gamma."""
    linear = (np.asarray(colour) / 255) ** (563 / 256)
    light = np.clip(linear @ primaries @ np.linalg.inv(SRGB), 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(
    "colour", [(60, 170, 60), (200, 120, 90), (128, 128, 128), (255, 255, 255), (0, 0, 0)]
)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "PIL", "P", "L", "RGBA", "LA", "I;16"])
def test_a_profile_is_converted_to_srgb(colour, form):
    profile = matrix_profile(ADOBE, 563 / 256)
    if form in ("L", "LA", "I;16"):
        colour = (colour[0],) * 3
    image = Image.new("RGB", (8, 8), colour)
    if form in ("PIL", "P", "L", "RGBA", "LA", "I;16"):
        image = (
            image.quantize(4)
            if form == "P"
            else image.convert("L" if form == "I;16" else "RGB" if form == "PIL" else form)
        )
        if form == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        image.info["icc_profile"] = profile
        given = image
    else:
        given = encoded(
            image, form, icc_profile=profile, **({"lossless": True} if form == "WEBP" else {"quality": 100})
        )
    opened = open_picture(given)
    assert np.abs(np.asarray(opened.getpixel((4, 4)))[:3] - in_srgb(colour)).max() <= (
        3 if form == "JPEG" else 1.5
    )
    assert opened.mode == ("RGBA" if form in ("RGBA", "LA") else "RGB")
    assert read_source(opened).sha256 == read_source(given).sha256  # not applied a second time


def test_profiles_of_srgb_change_no_bit():
    pixels = noise(64, 64)
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),):
        data = encoded(Image.fromarray(pixels), icc_profile=profile)
        assert np.array_equal(np.asarray(open_picture(data)), pixels)


def test_alpha_is_kept_through_a_profile():
    pixels = noise(channels=4)
    data = encoded(Image.fromarray(pixels), icc_profile=matrix_profile(ADOBE, 2.2))
    opened = np.asarray(open_picture(data))
    assert np.array_equal(opened[..., 3], pixels[..., 3])
    assert not np.array_equal(opened[..., :3], pixels[..., :3])


@pytest.mark.parametrize(
    "profile", [b"garbage", bytes(128), matrix_profile(ADOBE, 2.2)[:200], b"\0" * 16 + b"CMYK" + bytes(200)]
)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_broken_profile_is_passed_over_with_a_warning(profile, form):
    image = Image.new("RGB", (8, 8), (60, 170, 60))
    with pytest.warns(PictureWarning, match="the picture has a colour profile that cannot be used"):
        opened = open_picture(encoded(image, form, icc_profile=profile))
    assert np.abs(np.subtract(opened.getpixel((4, 4)), (60, 170, 60))).max() <= 3


def test_a_profile_that_unpacks_to_too_much_is_passed_over():
    bomb = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(64 << 20)))
    data = with_chunks(encoded(Image.fromarray(noise())), bomb)
    tracemalloc.start()
    with pytest.warns(PictureWarning, match="too large"):
        opened = open_picture(data)
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()
    assert np.array_equal(np.asarray(opened), noise())


# Containers


def test_the_first_picture_of_several_is_read():
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ((30, 160, 60), (0, 0, 255)))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    for given in (data, Image.open(io.BytesIO(data))):
        assert np.abs(np.subtract(open_picture(given).getpixel((5, 5)), (30, 160, 60))).max() <= 3
    assert np.abs(decode(data, 16)[:, 3, 3].astype(int) - (30, 160, 60)).max() <= 3  # in training too


@pytest.mark.parametrize(
    "large",
    [
        chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(40 << 20))),
        chunk(b"iTXt", b"note\0\1\0\0\0" + zlib.compress(bytes(40 << 20))),
        chunk(b"tEXt", b"note\0" + b"x" * (2 << 20)),
        chunk(b"zTXt", b"note\0\0garbage"),
        chunk(b"iTXt", b"note\0\1"),
        chunk(b"iTXt", b"note\0\0\0\0\0\xff\xfe"),
        b"".join(chunk(b"zTXt", b"n\0\0" + zlib.compress(bytes(1 << 20))) for _ in range(100)),
    ],
    ids=["zTXt", "iTXt", "tEXt", "damaged", "cut", "not UTF-8", "many"],
)
def test_large_and_damaged_text_is_skipped_and_ours_is_read(large):
    text = PngImagePlugin.PngInfo()
    text.add_text("unclip", '{"seed": 3}')
    text.add_text("parameters", "a red fox")
    data = with_chunks(encoded(Image.fromarray(noise()), pnginfo=text), large)
    tracemalloc.start()
    opened, carried, found = open_picture(data), read_provenance(data), read_text(data)
    assert tracemalloc.get_traced_memory()[1] < 48 << 20
    tracemalloc.stop()
    assert np.array_equal(np.asarray(opened), noise())
    assert carried == {"seed": 3}
    assert found["parameters"] == "a red fox"
    assert "note" not in found


@pytest.mark.parametrize("form", ["tEXt", "zTXt", "iTXt", "iTXt packed"])
def test_text_is_read_from_every_kind_of_chunk(form):
    text, packed = PngImagePlugin.PngInfo(), form in ("zTXt", "iTXt packed")
    if form.startswith("iTXt"):
        text.add_itxt("unclip", '{"a": "ü"}', zip=packed)
    else:
        text.add_text("unclip", '{"a": "ü"}', zip=packed)
    assert read_provenance(encoded(Image.fromarray(noise()), pnginfo=text)) == {"a": "ü"}


def test_our_own_text_that_is_too_large_is_damaged_not_absent():
    text = PngImagePlugin.PngInfo()
    text.add_text("unclip", '{"a": "' + "x" * (3 << 20) + '"}')
    with pytest.raises(PictureError, match="damaged provenance"):
        read_provenance(encoded(Image.fromarray(noise()), pnginfo=text))


@pytest.mark.parametrize("depth", [12, 40, 900, 5000, 100_000])
@pytest.mark.parametrize("kind", ["list", "object"])
def test_provenance_that_is_nested_deep_is_damaged(depth, kind):
    opened, closed = ("[", "]") if kind == "list" else ('{"a":', "}")
    text = PngImagePlugin.PngInfo()
    text.add_text("unclip", f'{{"a": {opened * depth}1{closed * depth}}}')
    data = encoded(Image.fromarray(noise()), pnginfo=text)
    if depth == 12:
        assert list(read_provenance(data)) == ["a"]
    else:
        with pytest.raises(PictureError, match="damaged provenance"):
            read_provenance(data)


def test_a_file_that_ends_in_its_chunks_is_damaged(tmp_path):
    data = with_chunks(
        encoded(Image.fromarray(noise())), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(4 << 20)))
    )
    path = Path(tmp_path / "cut.png")
    path.write_bytes(data[:60])
    with pytest.raises(PictureError, match=r"cut\.png is damaged"):
        open_picture(path)
    with pytest.raises(PictureError, match=r"cut\.png is damaged"):
        read_text(path)


# The files that first showed these faults

FAULTS = Path(__file__).with_name("faults")


def test_the_files_that_showed_the_faults_are_read():
    assert (
        open_picture(FAULTS / "phone_mpo.jpg").size == open_picture(FAULTS / "big_ztxt.png").size == (96, 64)
    )
    assert read_provenance(FAULTS / "ours_plus_workflow.png")["seed"] == 7
    assert read_source(FAULTS / "soft_alpha.png").image.getchannel("A").getextrema() == (0, 255)
    with pytest.raises(PictureError, match=r"zero\.png is empty \(0 bytes\)"):
        open_picture(FAULTS / "zero.png")
    with Image.open(FAULTS / "wide_gamut.png") as image:
        before = np.asarray(image.convert("RGB"))
    after = np.asarray(open_picture(FAULTS / "wide_gamut.png"))
    # Its colours are beyond sRGB: what sRGB lacks is cut off.
    assert before[3, 3].tolist() == [230, 40, 30]
    assert np.abs(after[3, 3] - in_srgb((230, 40, 30), P3)).max() <= 1.5
    green = np.argwhere((before == (60, 170, 60)).all(-1))[0]
    assert np.abs(after[tuple(green)] - in_srgb((60, 170, 60), P3)).max() <= 1.5


P3 = np.array([[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]])
"""Primaries of Display P3 adapted to D50."""
