"""Interpolations and text diffs: their ends are the reconstructions, what lies between goes from one to the other."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from unclip.errors import RequestError
from unclip.generate.image import Image as Result
from unclip.generate.operations.path import path_thetas
from unclip.generate.sequence import animation, save_animation, strip

QUICK = {"seed": 3, "size": 16, "steps": 8}


def thetas(pictures: list[Result]) -> list[float]:
    found = [picture.provenance["request"]["thetas"] for picture in pictures]
    assert all(len(one) == 1 for one in found)
    return [one[0] for one in found]


def same(a: Result, b: Result) -> bool:
    return a.image.tobytes() == b.image.tobytes()


@pytest.fixture(scope="module")
def other(drawing) -> Image.Image:
    return Image.merge("RGB", [drawing.getchannel(c).rotate(90) for c in "BRG"])


@pytest.fixture(scope="module")
def path(gaussian_model, drawing, other) -> list[Result]:
    return gaussian_model.interpolate(drawing, other, frames=5, **QUICK)


def test_ends_are_the_reconstructions(gaussian_model, path, drawing, other):
    assert thetas(path) == [0, 0.25, 0.5, 0.75, 1]
    for end, original in ((path[0], drawing), (path[-1], other)):
        assert same(end, gaussian_model.reconstruct(original, seed=3, size=16, steps=8))


def test_the_way_leads_from_one_to_the_other(path):
    first, *_, last = pixels = [np.asarray(picture.image, float) for picture in path]
    away = [np.abs(one - first).mean() for one in pixels]
    nearer = [np.abs(one - last).mean() for one in pixels]
    assert away == sorted(away)
    assert nearer == sorted(nearer, reverse=True)


def test_fixed_noise_is_the_seeds(tiny_model, drawing, other):
    made = tiny_model.interpolate(drawing, other, frames=2, noise="fixed", **QUICK)
    alone = tiny_model.vary(drawing, n=1, seed=3, size=16, steps=8)[0]
    assert same(made[0], alone)
    assert not same(made[0], made[1])


def test_theta_zero_of_a_diff_is_the_reconstruction(gaussian_model, drawing):
    made = gaussian_model.text_diff(drawing, "a red apple", baseline="a blue cat", frames=3, **QUICK)
    assert thetas(made) == [0, 0.25, 0.5]
    assert same(made[0], gaussian_model.reconstruct(drawing, seed=3, size=16, steps=8))
    z_i, z_t, z_t0 = (
        gaussian_model.embed_image(drawing)[0],
        *gaussian_model.embed_text(["a red apple", "a blue cat"]),
    )
    z_d = normalize(z_t - z_t0, dim=-1)
    # Halfway on the arc of two unit vectors lies their normalised sum.
    torch.testing.assert_close(made[-1].embedding, normalize(z_i + z_d, dim=-1))
    assert (made[-1].embedding @ z_d) > (made[1].embedding @ z_d) > (z_i @ z_d)


def test_provenance_makes_pictures_and_strips_again(tiny_model, drawing, other):
    one = tiny_model.interpolate(drawing, other, frames=3, noise="fixed", seed=3, steps=2)
    assert same(tiny_model.redo(one[1].provenance, drawing, other), one[1])
    with pytest.raises(RequestError, match="give the original, in the recorded order"):
        tiny_model.redo(one[1].provenance, other, drawing)
    two = tiny_model.text_diff(drawing, "a red apple", frames=2, maximum=0.3, seed=3, steps=2)
    assert thetas(two) == [0, 0.3]
    sheet = strip(two)
    assert sheet.image.size == (64, 32)
    again = tiny_model.redo(json.loads(json.dumps(sheet.provenance)), drawing)
    assert same(again, sheet)
    assert again.provenance == sheet.provenance
    between_ends = tiny_model.interpolate(drawing, other, thetas=(0.1, 0.9), seed=3, steps=2)
    assert thetas(between_ends) == [0.1, 0.9]
    assert same(tiny_model.redo(between_ends[1].provenance, drawing, other), between_ends[1])


def test_animations_move_and_carry_their_provenance(path, tmp_path):
    for kind in (".gif", ".webp"):
        with Image.open(io.BytesIO(animation(path, kind, milliseconds=70))) as moving:
            assert moving.n_frames == 5
            assert moving.info["loop"] == 0
            text = moving.info["comment"].decode() if kind == ".gif" else moving.getexif()[0x010E]
            mark = text if kind == ".gif" else moving.info["xmp"].decode()
            carried = json.loads(text)["unclip"] if kind == ".gif" else json.loads(text)
        request = {**path[0].provenance["request"], "thetas": [0, 0.25, 0.5, 0.75, 1]}
        assert carried == {**path[0].provenance, "request": request}
        assert "trainedAlgorithmicMedia" in mark
    file = save_animation(path, tmp_path / "a.webp")
    with pytest.raises(FileExistsError, match="exists"):
        save_animation(path, file)
    with pytest.raises(ValueError, match=r"choose \.gif or \.webp"):
        save_animation(path, tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="out of range"):
        animation(path, ".gif", milliseconds=0)
    with pytest.raises(ValueError, match="no pictures"):
        strip([])


def test_positions_on_a_path():
    assert path_thetas(None, 3, 0.5) == (0, 0.25, 0.5)
    assert path_thetas((0.2, 0.1), 3) == (0.2, 0.1)


def test_values_out_of_range_are_refused(tiny_model, drawing):
    with pytest.raises(RequestError, match="frames is 1: give a number from 2"):
        tiny_model.interpolate(drawing, drawing, frames=1)
    with pytest.raises(RequestError, match=r"thetas is 1\.125: give a number from 0 to 1"):
        tiny_model.interpolate(drawing, drawing, thetas=(0.5, 1.125))
    with pytest.raises(RequestError, match="thetas has 0 values"):
        tiny_model.interpolate(drawing, drawing, thetas=())
    with pytest.raises(RequestError, match=r"maximum is 1\.5: give a number from 0 to 1"):
        tiny_model.text_diff(drawing, "a red apple", maximum=1.5)
    with pytest.raises(RequestError, match="target caption is empty"):
        tiny_model.text_diff(drawing, " ")
    with pytest.raises(RequestError, match="same to CLIP"):
        tiny_model.text_diff(drawing, "a red  apple", baseline="A red apple")
