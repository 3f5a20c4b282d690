"""`unclip show` reads back what a picture carries, and says plainly when it carries nothing."""

import json

from PIL import Image

from unclip.images import save_picture

RECIPE = {"prompt": "a rød rocket", "seed": 7, "steps": [20, 27]}


def test_prints_the_recipe(unclip, tmp_path):
    path = save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", recipe=RECIPE)
    assert unclip("show", path) == (0, "prompt: a rød rocket\nseed: 7\nsteps: [20, 27]\n", "")


def test_prints_json(unclip, tmp_path):
    path = save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", recipe=RECIPE)
    code, out, err = unclip("show", path, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == RECIPE


def test_picture_without_recipe(unclip, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    code, out, err = unclip("show", tmp_path / "plain.png")
    assert (code, out) == (1, "")
    assert "carries no recipe" in err


def test_missing_file(unclip, tmp_path):
    code, out, err = unclip("show", tmp_path / "absent.png")
    assert (code, out) == (1, "")
    assert "absent.png" in err
