"""What the bundled model does with drawings that it never saw: the promises of the manipulations, kept.

Those that draw are slow; `unclip evaluate --manipulation all` measures the same on many drawings, with a judge.
"""

from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from PIL import Image

import unclip
from unclip.generate.operations import TextDiff

INPUTS = Path(__file__).parent.parent.parent / "docs" / "images" / "inputs"
CAPTIONS = {
    "apple": "a red apple, noto style",
    "car": "a car, flat style",
    "cat": "a black cat, noto style",
    "face": "a smiling face with smiling eyes, noto style",
    "fox": "a fox, flat style",
    "tree": "a deciduous tree, noto style",
}
FURTHER = (
    "a dog face, noto style",
    "a house, flat style",
    "a rocket, flat style",
    "a yellow star, noto style",
)
QUICK = {"size": 64, "seed": 1}


@pytest.fixture(scope="module")
def model():
    return unclip.load("artwork", device="cpu")


@pytest.fixture(scope="module")
def drawings() -> dict[str, Image.Image]:
    return {name: Image.open(INPUTS / f"{name}.png").convert("RGB") for name in CAPTIONS}


def turned(model: unclip.Model, z_i: torch.Tensor, target: str, source: str) -> torch.Tensor:
    """z_i at the end of the text diff's path."""
    space = model.parts.space
    direction = space.difference(*model.embed_text([target, source]))
    return space.between(z_i, space.at_length_of(direction, z_i), TextDiff(target=target).maximum)


def test_text_diffs_lead_the_embedding_to_the_new_caption(model, drawings):
    """From each drawing to every caption that is not its own, nearest among all of them."""
    captions = [*CAPTIONS.values(), *FURTHER]
    moved = []
    for name, source in CAPTIONS.items():
        z_i = model.embed_image(drawings[name])[0]
        for target in captions:
            if target == source:
                continue
            path = [z_i, turned(model, z_i, target, source)]
            nearest = [model.nearest_captions(one, captions, k=1)[0].caption for one in path]
            moved.append(nearest == [source, target])
    assert len(moved) == 54
    assert np.mean(moved) >= 0.7


@pytest.mark.slow
def test_an_inversion_gives_the_drawing_back(model, drawings):
    found = {
        steps: median(
            model.reconstruct(drawings[name], steps=steps, **QUICK).provenance["results"]["psnr"]
            for name in ("apple", "face", "fox")
        )
        for steps in (5, 25, 50)
    }
    assert found[5] < found[25] <= found[50] + 0.5
    assert found[50] > 25.0


@pytest.mark.slow
def test_nothing_changed_is_the_reconstruction(model, drawings):
    apple, face = drawings["apple"], drawings["face"]
    wanted = [model.reconstruct(one, steps=5, **QUICK).image.tobytes() for one in (apple, face)]
    path = model.interpolate(apple, face, frames=2, steps=5, **QUICK)
    assert [one.image.tobytes() for one in path] == wanted
    still = model.text_diff(apple, CAPTIONS["car"], frames=2, steps=5, **QUICK)[0]
    assert still.image.tobytes() == wanted[0]
    (varied,) = model.vary(apple, n=1, eta=0.0, steps=5, **QUICK)
    assert varied.image.tobytes() == wanted[0]


@pytest.mark.slow
def test_edits_change_the_box_and_nothing_else(model, drawings):
    tree = np.asarray(drawings["tree"])
    (made,) = model.edit(drawings["tree"], (0, 0, 256, 170), "an orange tree, noto style", seed=1)
    after = np.asarray(made.image)
    assert np.array_equal(after[170:], tree[170:])
    captions = ["a green tree, noto style", "an orange tree, noto style"]
    nearest = [
        model.nearest_captions(one, captions, k=1)[0].caption for one in (drawings["tree"], made.image)
    ]
    assert nearest == captions
