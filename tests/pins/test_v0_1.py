"""Files of version 0.1 still work: its model folders load, and its pictures are made again from what they carry.

`v0_1/make.py` made the files. On other processors and in other numbers of threads the pixels of version 0.1 itself
differ by 1 of 255; the tolerance allows 2. Another seed, prompt, guidance or number of steps changes them by more.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unclip
from unclip.cli.main import main

FOLDER = Path(__file__).parent / "v0_1"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
TOLERANCE = 2


def distance(a: Path | Image.Image, b: Path | Image.Image) -> int:
    """The largest difference between the pixels of two pictures of one shape."""
    first, second = (
        np.asarray(one if isinstance(one, Image.Image) else Image.open(one), np.int16) for one in (a, b)
    )
    assert first.shape == second.shape
    return int(np.abs(first - second).max())


@pytest.mark.parametrize("name", MANIFEST["pictures"])
def test_redo_makes_a_picture_of_version_0_1_again(name, tmp_path):
    entry = MANIFEST["pictures"][name]
    picture, again = FOLDER / "pictures" / f"{name}.png", tmp_path / "again.png"
    model = ["--model", str(FOLDER / entry["model"])]
    sources = [word for source in entry["sources"] for word in ("--source", str(FOLDER / "sources" / source))]
    assert main(["redo", str(picture), *model, *sources, "--quiet", "--output", str(again)]) == 0
    assert distance(picture, again) <= TOLERANCE


@pytest.mark.parametrize("name", MANIFEST["pictures"])
def test_show_prints_what_a_picture_of_version_0_1_carries(name, capsys):
    with Image.open(FOLDER / "pictures" / f"{name}.png") as picture:
        carried = json.loads(picture.text["unclip"])
    assert carried["recipe"] == 1
    assert main(["show", str(FOLDER / "pictures" / f"{name}.png")]) == 0
    printed = capsys.readouterr().out
    for key in ("operation", "seed", "weights", "prompt"):
        assert str(carried.get(key, "")) in printed


@pytest.mark.parametrize("name", ["tiny", "unet"])
def test_a_model_folder_of_version_0_1_draws(name):
    manifest = json.loads((FOLDER / name / "model.json").read_text(encoding="utf-8"))
    assert manifest["format"] == 1
    picture = "generate" if name == "tiny" else "unet-generate"
    with Image.open(FOLDER / "pictures" / f"{picture}.png") as drawn:
        seed = json.loads(drawn.text["unclip"])["seed"]
    (made,) = unclip.load(FOLDER / name, device="cpu").generate("a red apple", seed=seed)
    assert distance(FOLDER / "pictures" / f"{picture}.png", made.image) <= TOLERANCE
