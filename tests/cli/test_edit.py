"""`unclip edit`, `outpaint` and `upscale` on a tiny model with random weights."""

from pathlib import Path

import pytest
from PIL import Image

from unclip.images import open_picture, read_provenance


@pytest.fixture
def drawing(tmp_path) -> Path:
    """A green picture of 32 pixels."""
    path = tmp_path / "green.png"
    Image.new("RGB", (32, 32), "green").save(path)
    return path


def test_edit_in_a_box_keeps_the_rest(unclip, model, drawing, tmp_path):
    path = tmp_path / "a.png"
    options = ("-m", model, "-o", path, "--seed", 1)
    assert unclip("edit", drawing, "a red apple", "--box", "8,8,24,24", *options) == (0, f"{path}\n", "")
    picture = open_picture(path)
    assert picture.size == (32, 32)
    assert picture.crop((0, 0, 32, 8)).getcolors() == [(32 * 8, (0, 128, 0))]
    assert picture.crop((8, 8, 24, 24)).getcolors() != [(16 * 16, (0, 128, 0))]
    assert read_provenance(path)["request"]["box"] == [8, 8, 24, 24]


def test_edit_by_a_mask(unclip, model, drawing, tmp_path):
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 16, 32, 32))
    mask.save(tmp_path / "mask.png")
    options = ("-m", model, "-o", tmp_path / "a.png", "--seed", 1)
    assert unclip("edit", drawing, "a red apple", "--mask", tmp_path / "mask.png", *options).code == 0
    assert open_picture(tmp_path / "a.png").crop((0, 0, 32, 16)).getcolors() == [(32 * 16, (0, 128, 0))]


def test_outpaint_keeps_the_middle(unclip, model, drawing, tmp_path):
    path = tmp_path / "a.png"
    assert unclip("outpaint", drawing, "--right", 16, "-m", model, "-o", path, "--seed", 1) == (
        0,
        f"{path}\n",
        "",
    )
    picture = open_picture(path)
    assert picture.size == (48, 32)
    assert picture.crop((0, 0, 32, 32)).getcolors() == [(32 * 32, (0, 128, 0))]


def test_upscale(unclip, model, drawing, tmp_path):
    path = tmp_path / "a.png"
    assert unclip("upscale", drawing, "-m", model, "-o", path, "--seed", 1) == (0, f"{path}\n", "")
    assert open_picture(path).size == (64, 64)


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (("edit", "a", "--box", "1,2,3"), 2, "'1,2,3' has 3 values: give 4, separated by commas"),
        (
            ("edit", "a", "--box", "0,0,99,99"),
            2,
            "does not lie in the picture of 32x32: give left,top,right,bottom",
        ),
        (("edit", "a", "--box", "0,0,9,9", "--mask", "m.png"), 2, "not both"),
        (("edit", "a"), 2, "make the pixels to draw transparent, or give a mask or a box"),
        (("edit", " ", "--box", "0,0,9,9"), 2, "prompt is empty"),
        (("outpaint",), 2, "nothing is to be added: give left, top, right or bottom in pixels"),
        (("outpaint", "--left", -3), 2, "left is -3: give a number from 0 to 65536"),
        (("upscale", "--size", 20), 2, "33 to 64"),
    ],
)
def test_bad_input(unclip, model, drawing, tmp_path, monkeypatch, argv, code, told):
    monkeypatch.chdir(tmp_path)
    outcome = unclip(argv[0], drawing, *argv[1:], "-m", model)
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err
    assert list(tmp_path.iterdir()) == [drawing]


def test_generate_from_a_picture(unclip, model, drawing, tmp_path):
    path, again = tmp_path / "a.png", tmp_path / "again.png"
    options = ("-m", model, "--seed", 1, "--init", drawing)
    assert unclip("generate", "a red apple", "--strength", 0.5, *options, "-o", path) == (0, f"{path}\n", "")
    request = read_provenance(path)["request"]
    assert (request["kind"], request["strength"], request["prompt"]) == ("redraw", 0.5, "a red apple")
    code, _, err = unclip("redo", path, "--source", drawing, "-m", model, "-o", again)
    assert (code, err) == (0, "unclip: every pixel is the same\n")
    same = tmp_path / "same.png"
    assert (
        unclip("redraw", drawing, "a red apple", "--strength", 0.5, "-m", model, "--seed", 1, "-o", same).code
        == 0
    )
    assert open_picture(same).tobytes() == open_picture(path).tobytes()
    for strength in (0, 1.5):
        outcome = unclip("generate", "a", *options, "--strength", strength)
        assert (outcome.code, outcome.out) == (2, "")
        assert f"strength is {float(strength)}: give more than 0 and at most 1" in outcome.err
    assert unclip("generate", "a", "--strength", 0.5, "-m", model).code == 2
