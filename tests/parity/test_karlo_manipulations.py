"""Every manipulation with models in Karlo's format: what their parts allow works, and else the error names the part."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unclip
from unclip import Image as Picture
from unclip import Model

PROMPT, BOX = "a red cat", (8, 8, 20, 20)
STEPS: dict[str, Any] = {"seed": 1, "steps": 2, "upsampler_steps": 1}

#: Those that ask what CLIP sees in a picture, which takes its picture tower.
SEEING: dict[str, Callable[[Model, Image.Image], list[Picture]]] = {
    "vary": lambda karlo, picture: karlo.vary(picture, n=1, **STEPS),
    "vary around x_T": lambda karlo, picture: karlo.vary(picture, n=1, eta=0.5, **STEPS),
    "reconstruct": lambda karlo, picture: [karlo.reconstruct(picture, **STEPS)],
    "interpolate": lambda karlo, picture: karlo.interpolate(picture, picture.rotate(90), frames=3, **STEPS),
    "text_diff": lambda karlo, picture: karlo.text_diff(picture, PROMPT, baseline="a dog", **STEPS),
    "outpaint": lambda karlo, picture: [karlo.outpaint(picture, right=8, **STEPS)],
    "components": lambda karlo, picture: karlo.components(
        picture, [1, 2], [picture.rotate(angle) for angle in (0, 90, 180)], **STEPS
    ),
    "probe": lambda karlo, picture: karlo.probe(picture, "cat", ["a cat", "a dog"], n=1, **STEPS).variations,
}
#: Those that follow a caption, which takes the prior.
FOLLOWING: dict[str, Callable[[Model, Image.Image], list[Picture]]] = {
    "edit": lambda karlo, picture: karlo.edit(picture, BOX, PROMPT, prior_steps=2, **STEPS),
    "outpaint": lambda karlo, picture: [
        karlo.outpaint(picture, PROMPT, right=8, prior_steps=2, **STEPS),
    ],
    "redraw": lambda karlo, picture: karlo.redraw(picture, PROMPT, prior_steps=2, **STEPS),
}


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A wide picture with a border in it."""
    picture = Image.radial_gradient("L").resize((32, 24)).convert("RGB")
    picture.paste("orange", (20, 4, 30, 14))
    return picture


@pytest.fixture(scope="module")
def whole(karlo_folder: Path, variation_folder: Path) -> Model:
    """The text-to-picture model with the CLIP of the variations: all parts that there are."""
    return unclip.load(karlo_folder, clip=variation_folder, device="cpu")


@pytest.mark.parametrize("name", [*SEEING, *(f"{name} after a caption" for name in FOLLOWING)])
def test_every_manipulation_works(whole, picture, name):
    act = SEEING.get(name) or FOLLOWING[name.removesuffix(" after a caption")]
    for made in act(whole, picture):
        assert made.provenance["model"] == whole.name
        assert np.asarray(made.image).std() > 1


def test_what_must_stay_does(whole, picture):
    """Karlo has no inpainting inputs: RePaint edits. Kept pixels are exact, ends of a path are the reconstructions."""
    (edited,) = FOLLOWING["edit"](whole, picture)
    hole = np.zeros((24, 32), dtype=bool)
    hole[8:20, 8:20] = True
    assert np.array_equal(np.asarray(edited.image)[~hole], np.asarray(picture)[~hole])
    for acts in (SEEING, FOLLOWING):
        (made,) = acts["outpaint"](whole, picture)
        assert made.image.size == (40, 24)
        assert made.image.crop((0, 0, 32, 24)).tobytes() == picture.tobytes()
    wanted = whole.reconstruct(picture, **STEPS).image.tobytes()
    for path in (SEEING["interpolate"], SEEING["text_diff"]):
        assert path(whole, picture)[0].image.tobytes() == wanted
    assert whole.vary(picture, n=1, eta=0.0, **STEPS)[0].image.tobytes() == wanted


def test_enlargement(whole, picture):
    assert whole.upscale(picture, seed=1, upsampler_steps=1).image.size == (64, 48)


@pytest.mark.parametrize("name", SEEING)
def test_without_the_picture_tower_it_is_named(karlo_folder, picture, name):
    with pytest.raises(ValueError, match="has no image encoder, which"):
        SEEING[name](unclip.load(karlo_folder, device="cpu"), picture)


@pytest.mark.parametrize("name", FOLLOWING)
def test_what_follows_a_caption_needs_the_prior_and_no_picture_tower(
    karlo_folder, variation_folder, picture, name
):
    assert FOLLOWING[name](unclip.load(karlo_folder, device="cpu"), picture)
    with pytest.raises(ValueError, match=r"has no prior, which .* needs: it has clip, decoder, upsampler"):
        FOLLOWING[name](unclip.load(variation_folder, device="cpu"), picture)


def test_components_of_the_model_need_the_autoregressive_prior(whole, picture):
    with pytest.raises(ValueError, match="has no autoregressive prior"):
        whole.components(picture, [1])
