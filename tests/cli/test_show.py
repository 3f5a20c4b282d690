"""`unclip show` reads back what a picture carries, and says plainly when it carries nothing."""

import json

from PIL import Image

from unclip.images import save_picture

PROVENANCE = {"model": "rød", "request": {"seed": 7, "sampling": {"random": "unclip"}}, "size": [20, 27]}


def test_prints_the_provenance(unclip, tmp_path):
    path = save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", provenance=PROVENANCE)
    assert unclip("show", path) == (
        0,
        "model: rød\nrequest.seed: 7\nrequest.sampling.random: unclip\nsize: [20, 27]\n",
        "",
    )


def test_prints_json(unclip, tmp_path):
    path = save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", provenance=PROVENANCE)
    code, out, err = unclip("show", path, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == PROVENANCE


def test_picture_without_provenance(unclip, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    code, out, err = unclip("show", tmp_path / "plain.png")
    assert (code, out) == (1, "")
    assert "carries no provenance" in err


def test_missing_file(unclip, tmp_path):
    code, out, err = unclip("show", tmp_path / "absent.png")
    assert (code, out) == (1, "")
    assert "absent.png" in err
