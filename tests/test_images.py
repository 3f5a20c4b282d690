"""Pictures: pixels survive both ways, bad files are refused by name, provenance travels, files are whole or absent."""

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from unclip import images
from unclip.images import metadata


def noise_picture(width: int = 9, height: int = 7, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), mode=None)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_every_byte_survives_the_way_to_floats_and_back():
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    x = images.from_uint8(every)
    assert x.min() == -1
    assert x.max() == 1
    assert torch.equal(images.to_uint8(x), every)
    assert images.to_uint8(torch.full((3, 1, 1), 7.0)).unique().tolist() == [255]


def test_picture_to_tensor_and_back_keeps_pixels_and_orientation():
    picture = noise_picture()
    x = images.to_tensor(picture)
    assert x.shape == (3, 7, 9)
    assert images.to_image(x).tobytes() == picture.tobytes()


def test_transparency_shows_white():
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert images.to_tensor(clear).unique().tolist() == [1.0]
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert abs(images.flatten(half).getpixel((0, 0))[0] - 127) <= 1


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("size", [(9, 7), (64, 33), (300, 2)])
def test_sizes_are_read_without_decoding(form, size):
    data = encoded(noise_picture(*size), form)
    assert images.picture_size(data) == size
    assert images.open_picture(data).size == size


@pytest.mark.parametrize("options", [{"lossless": True}, {"exif": Image.Exif()}])
def test_webp_variants(options):
    data = encoded(noise_picture(33, 21), "WEBP", **options)
    assert images.picture_size(data) == images.open_picture(data).size == (33, 21)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "RGB"])
def test_any_png_mode_becomes_8_bit_colour(tmp_path, mode):
    if mode == "I;16":
        picture = Image.fromarray(np.array([[0, 65535], [257 * 99, 257]], dtype=np.uint16))
    else:
        picture = noise_picture().convert(mode)
    picture.save(tmp_path / "a.png")
    opened = images.open_picture(tmp_path / "a.png")
    assert opened.mode == ("RGBA" if mode in ("LA", "RGBA") else "RGB")
    if mode == "I;16":
        assert [opened.getpixel((x, y))[0] for y in (0, 1) for x in (0, 1)] == [0, 255, 99, 1]


def test_camera_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert images.open_picture(encoded(noise_picture(9, 7), "JPEG", exif=exif)).size == (7, 9)


def test_a_bomb_is_refused_from_its_header_alone():
    with pytest.raises(images.PictureError, match=r"40000x40000, more than 64 megapixels"):
        images.open_picture(png_header(40_000, 40_000))
    with pytest.raises(images.PictureError, match="more than"):
        images.open_picture(encoded(noise_picture(20, 20), "PNG"), max_pixels=399)


def test_animations_are_refused():
    frames = [noise_picture(), Image.new("RGB", (9, 7))]
    for form in ("PNG", "WEBP"):
        with pytest.raises(images.PictureError, match="animated"):
            images.open_picture(encoded(frames[0], form, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_every_truncation_is_an_error_with_words(form):
    data = encoded(noise_picture(40, 30), form)
    for length in [*range(0, min(64, len(data) - 1), 3), len(data) // 2, len(data) * 3 // 4]:
        with pytest.raises(images.PictureError, match=r"damaged|not a PNG"):
            images.open_picture(data[:length])


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.png").write_text("<svg/>")
    with pytest.raises(images.PictureError, match=r"a\.png is not a PNG, JPEG or WebP"):
        images.open_picture(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        images.open_picture(tmp_path / "b.png")
    with pytest.raises(images.PictureError, match="not a PNG"):
        images.open_picture(encoded(noise_picture(), "GIF"))


def test_crop_resize_and_grid():
    picture = noise_picture(9, 7)
    assert images.centre_crop(picture).tobytes() == picture.crop((1, 0, 8, 7)).tobytes()
    assert images.resize(picture, (9, 7)) is picture
    flat = Image.new("RGB", (8, 8), (50, 60, 70))
    for method in ("bicubic", "area", "nearest"):
        assert images.resize(flat, 3, method).getcolors() == [(9, (50, 60, 70))]
    sheet = images.grid([flat] * 5, gap=2)
    assert sheet.size == (28, 18)
    assert sheet.getpixel((8, 0)) == (255, 255, 255)
    assert images.grid([flat] * 5, columns=5).size == (40, 8)
    with pytest.raises(ValueError, match="at least one"):
        images.grid([])


def test_area_resize_is_the_mean_of_the_pixels():
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    pixels[0, 0] = 200
    assert images.resize(Image.fromarray(pixels), 1, "area").getpixel((0, 0)) == (50, 50, 50)


def test_a_saved_picture_tells_its_provenance_and_that_it_is_synthetic(tmp_path):
    provenance = {"prompt": "ein größerer 🚀", "seed": 7, "nested": {"a": [1, 2.5, None]}}
    path = images.save_picture(
        noise_picture(), tmp_path / "new" / "a.png", provenance=provenance, parameters="größer\nSteps: 3"
    )
    assert images.read_provenance(path) == provenance
    assert images.read_parameters(path) == "größer\nSteps: 3"
    assert images.open_picture(path).tobytes() == noise_picture().tobytes()
    with Image.open(path) as opened:
        xmp = opened.getxmp() if _has_xml_reader() else None
    text = images.read_text(path)["XML:com.adobe.xmp"]
    assert (
        "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia<"
        in text
    )
    if xmp is not None:
        assert xmp["xmpmeta"]["RDF"]["Description"]["DigitalSourceType"] == images.GENERATED
    bare = images.save_picture(noise_picture(), tmp_path / "bare.png", source_type=None)
    assert images.read_text(bare) == {}


def _has_xml_reader() -> bool:
    try:
        import defusedxml  # noqa: F401
    except ImportError:
        return False
    return True


def test_the_same_picture_gives_the_same_bytes(tmp_path):
    first, second = (
        images.save_picture(noise_picture(), tmp_path / name, provenance={"a": 1})
        for name in ("a.png", "b.png")
    )
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("text", [None, "{", "[]", "[" * 100_000, json.dumps({"a": "x" * 1_000_000})])
def test_missing_or_damaged_provenance_is_named(text):
    chunks = PngImagePlugin.PngInfo()
    if text is not None:
        chunks.add_text("unclip", text)
    with pytest.raises(images.PictureError, match="provenance"):
        images.read_provenance(encoded(noise_picture(), "PNG", pnginfo=chunks))
    with pytest.raises(images.PictureError, match="no provenance"):
        images.read_provenance(encoded(noise_picture(), "JPEG"))


def test_an_existing_file_is_kept_unless_asked(tmp_path):
    path = images.write_atomically(tmp_path / "a.bin", b"one")
    with pytest.raises(FileExistsError, match=r"a\.bin exists"):
        images.write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
    images.write_atomically(path, b"two", force=True)
    assert path.read_bytes() == b"two"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_no_overwriting_without_hard_links_either(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    path = images.write_atomically(tmp_path / "a.bin", b"one")
    with pytest.raises(FileExistsError, match="exists"):
        images.write_atomically(path, b"two")
    assert path.read_bytes() == b"one"


def test_only_png_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"'a\.jpg' does not end in \.png"):
        images.save_picture(noise_picture(), tmp_path / "a.jpg")


def test_reading_provenance_does_not_load_torch(tmp_path):
    path = images.save_picture(noise_picture(), tmp_path / "a.png", provenance={"seed": 3})
    program = f"import sys; from unclip.images import read_provenance; print(read_provenance({str(path)!r}), 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "{'seed': 3} False"


def test_public_names_are_sorted_and_exist():
    assert images.__all__ == sorted(images.__all__)
    assert all(getattr(images, name) is not None for name in images.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        images.nothing  # noqa: B018
    assert metadata.encode_png(noise_picture()).startswith(b"\x89PNG")
    assert Path(images.__file__).name == "__init__.py"
