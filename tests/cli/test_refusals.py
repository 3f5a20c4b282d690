"""What every verb that takes pictures refuses: files that are no sensible picture, and writing over what is there."""

import io
import struct
import zlib
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from unclip.generate.image import Image as Result

KINDS = {
    "text.png": "text.png is not a PNG, JPEG or WebP picture",
    "absent.png": "absent.png",
    "cut.png": "cut.png is damaged",
    "bomb.png": "bomb.png is 30000x30000, more than 64 megapixels",
    "moving.webp": "moving.webp is animated",
}

# The bad picture stands in the place of BAD; OK is a good one.
PLACES = {
    "vary": ("vary", "BAD"),
    "interpolate from": ("interpolate", "BAD", "OK"),
    "interpolate to": ("interpolate", "OK", "BAD"),
    "text-diff": ("text-diff", "BAD", "a cat"),
    "diff": ("diff", "BAD", "a cat"),
    "redraw": ("redraw", "BAD", "a cat"),
    "edit": ("edit", "BAD", "a cat", "--box", "0,0,4,4"),
    "edit's mask": ("edit", "OK", "a cat", "--mask", "BAD"),
    "outpaint": ("outpaint", "BAD", "--left", "8"),
    "upscale": ("upscale", "BAD"),
    "reconstruct": ("reconstruct", "BAD"),
    "reconstruct's basis": ("reconstruct", "OK", "--dimensions", "1", "--basis", "basis"),
    "components": ("components", "BAD", "1"),
    "components' basis": ("components", "OK", "1", "--basis", "basis"),
    "captions": ("captions", "BAD", "a cat"),
    "probe": ("probe", "BAD", "cat", "a cat", "a dog"),
    "generate's start": ("generate", "a cat", "--init", "BAD"),
    "redo": ("redo", "BAD"),
    "redo's source": ("redo", "made.png", "--source", "BAD"),
    "show": ("show", "BAD"),
}

BASES = ("reconstruct's basis", "components' basis")

# What draws, each with few steps, and the file that it writes to.
WRITERS = {
    "vary": ("vary", "ok.png", "-n", "1"),
    "interpolate": ("interpolate", "ok.png", "ok.png", "-n", "2"),
    "interpolate animated": ("interpolate", "ok.png", "ok.png", "-n", "2", "-o", "there.webp"),
    "diff": ("diff", "ok.png", "a blue cat", "-n", "2"),
    "edit": ("edit", "ok.png", "a blue cat", "--box", "0,0,4,4"),
    "outpaint": ("outpaint", "ok.png", "--left", "8"),
    "upscale": ("upscale", "ok.png"),
    "reconstruct": ("reconstruct", "ok.png"),
    "redraw": ("redraw", "ok.png", "a blue cat"),
    "probe": ("probe", "ok.png", "cat", "a cat", "a dog", "-n", "1"),
    "generate": ("generate", "a blue cat"),
    "generate from a picture": ("generate", "a blue cat", "--init", "ok.png"),
    "grid": ("vary", "ok.png", "-n", "2", "-o", "others/", "--grid", "there.png"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a picture that is fine and every kind that is not."""
    monkeypatch.chdir(tmp_path)
    picture = Image.new("RGB", (32, 32), "green")
    picture.paste("red", (8, 8, 20, 20))
    picture.save("ok.png")
    request = {"kind": "vary", "n": 1, "seed": 1, "size": 16}
    provenance = {"provenance": 2, "request": request, "sources": ["0" * 64], "model": "none", "digest": "0"}
    Result(image=picture, provenance=provenance).save("made.png")
    Path("text.png").write_text("no picture")
    Path("cut.png").write_bytes(Path("ok.png").read_bytes()[:60])
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    Path("bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    picture.save("moving.webp", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("place", "kind"),
    # A folder has no absent files.
    [case for case in product(PLACES, KINDS) if case[0] not in BASES or case[1] != "absent.png"],
)
def test_a_bad_picture_is_named_before_any_model_is_loaded(unclip, folder, place, kind):
    """There is no model of the name given: who loads one first complains of that."""
    if place in BASES:
        (folder / "basis").mkdir()
        for name in ("ok.png", kind):
            (folder / "basis" / name).write_bytes((folder / name).read_bytes())
    told = KINDS[kind]
    if (place, kind) == ("show", "moving.webp"):
        told = "moving.webp carries no provenance"
    before = files(folder)
    words = [{"BAD": kind, "OK": "ok.png"}.get(word, word) for word in PLACES[place]]
    model = () if words[0] == "show" else ("-m", folder / "no-model")
    code, out, err = unclip(*words, *model)
    assert (code, out) == (1, "")
    assert told in err
    assert len(err.splitlines()) == 1
    assert files(folder) == before


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (Image.new("L", (8, 8), 255), "the mask is 8x8 and the picture 32x32"),
        (Image.new("L", (32, 32)), "the mask is empty"),
        (None, "the picture has no transparent pixels"),
    ],
)
def test_a_mask_that_does_not_fit_is_told_before_any_model_is_loaded(unclip, folder, mask, told):
    words = ["edit", "ok.png", "a cat", "-m", folder / "no-model"]
    if mask is not None:
        mask.save("mask.png")
        words += ["--mask", "mask.png"]
    code, out, err = unclip(*words)
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.parametrize("writer", WRITERS)
def test_nothing_is_overwritten_without_force(unclip, model, folder, writer):
    words = [*WRITERS[writer], "-m", model, "--seed", "1"]
    if words[0] != "generate" or "--init" in words:
        words += ["--steps", "2"]
    name = next((word for word in words if str(word).startswith("there.")), "there.png")
    if name not in words:
        words += ["-o", name]
    (folder / name).write_bytes(b"mine")
    before = files(folder)
    code, out, err = unclip(*words)
    assert (code, out) == (1, "")
    assert f"{name} exists; give --force" in err
    assert files(folder) == before
    code, out, _ = unclip(*words, "--force")
    assert code == 0
    assert name in out
    with Image.open(io.BytesIO((folder / name).read_bytes())) as picture:
        picture.load()
