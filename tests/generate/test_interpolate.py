"""Interpolations and text diffs: their ends are the reconstructions, what lies between goes from one to the other."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from unclip.generate.interpolate import between, evenly
from unclip.generate.picture import Picture
from unclip.generate.sequence import animation, save_animation, strip

QUICK = {"seed": 3, "size": 16, "decoder_steps": 8}


def same(a: Picture, b: Picture) -> bool:
    return a.image.tobytes() == b.image.tobytes()


@pytest.fixture(scope="module")
def other(drawing) -> Image.Image:
    return Image.merge("RGB", [drawing.getchannel(c).rotate(90) for c in "BRG"])


@pytest.fixture(scope="module")
def path(gaussian_system, drawing, other) -> list[Picture]:
    return gaussian_system.interpolate(drawing, other, steps=5, **QUICK)


def test_ends_are_the_reconstructions(gaussian_system, path, drawing, other):
    assert [picture.recipe["theta"] for picture in path] == [0, 0.25, 0.5, 0.75, 1]
    for end, original in ((path[0], drawing), (path[-1], other)):
        assert same(end, gaussian_system.reconstruct(original, seed=3, size=16, steps=8))


def test_the_way_leads_from_one_to_the_other(path):
    first, *_, last = pixels = [np.asarray(picture.image, float) for picture in path]
    away = [np.abs(one - first).mean() for one in pixels]
    nearer = [np.abs(one - last).mean() for one in pixels]
    assert away == sorted(away)
    assert nearer == sorted(nearer, reverse=True)


def test_fixed_noise_is_the_seeds(tiny_system, drawing, other):
    made = tiny_system.interpolate(drawing, other, steps=2, noise="fixed", **QUICK)
    alone = tiny_system.vary(drawing, n=1, seed=3, size=16, steps=8)[0]
    assert same(made[0], alone)
    assert not same(made[0], made[1])


def test_theta_zero_of_a_diff_is_the_reconstruction(gaussian_system, drawing):
    made = gaussian_system.text_diff(drawing, source="a blue cat", target="a red apple", steps=3, **QUICK)
    assert [picture.recipe["theta"] for picture in made] == [0, 0.25, 0.5]
    assert same(made[0], gaussian_system.reconstruct(drawing, seed=3, size=16, steps=8))
    z_i, z_t, z_t0 = (
        gaussian_system.embed_image(drawing)[0],
        *gaussian_system.embed_text(["a red apple", "a blue cat"]),
    )
    z_d = normalize(z_t - z_t0, dim=-1)
    # Halfway on the arc of two unit vectors lies their normalised sum.
    torch.testing.assert_close(made[-1].embedding, normalize(z_i + z_d, dim=-1))
    assert (made[-1].embedding @ z_d) > (made[1].embedding @ z_d) > (z_i @ z_d)


def test_recipes_make_pictures_and_strips_again(tiny_system, drawing, other):
    one = tiny_system.interpolate(drawing, other, steps=3, noise="fixed", seed=3, decoder_steps=2)
    assert same(tiny_system.redo(one[1].recipe, drawing, other), one[1])
    with pytest.raises(ValueError, match="in the order of the recipe"):
        tiny_system.redo(one[1].recipe, other, drawing)
    two = tiny_system.text_diff(drawing, target="a red apple", steps=2, maximum=0.3, seed=3, decoder_steps=2)
    assert two[1].recipe["theta"] == 0.3
    sheet = strip(two)
    assert sheet.image.size == (64, 32)
    again = tiny_system.redo(json.loads(json.dumps(sheet.recipe)), drawing)
    assert same(again, sheet)
    assert again.recipe == sheet.recipe


def test_animations_move_and_carry_their_recipe(path, tmp_path):
    for kind in (".gif", ".webp"):
        with Image.open(io.BytesIO(animation(path, kind, milliseconds=70))) as moving:
            assert moving.n_frames == 5
            assert moving.info["loop"] == 0
            text = moving.info["comment"].decode() if kind == ".gif" else moving.getexif()[0x010E]
            mark = text if kind == ".gif" else moving.info["xmp"].decode()
            recipe = json.loads(text)["unclip"] if kind == ".gif" else json.loads(text)
        assert recipe == {**path[0].recipe, "theta": [0, 0.25, 0.5, 0.75, 1]}
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


def test_arcs_are_exact_at_their_ends():
    a, b = torch.randn(2, 5)
    assert between(a, b, 0) is a
    assert between(a, b, 1) is b
    assert evenly(3, 0.5) == [0, 0.25, 0.5]


def test_values_out_of_range_are_refused(tiny_system, drawing):
    with pytest.raises(ValueError, match="2 or more"):
        tiny_system.interpolate(drawing, drawing, steps=1)
    with pytest.raises(ValueError, match="inverted, fixed"):
        tiny_system.interpolate(drawing, drawing, noise="pink")
    with pytest.raises(ValueError, match=r"theta is 1\.125"):
        tiny_system.text_diff(drawing, target="a red apple", maximum=1.5)
    with pytest.raises(ValueError, match="target caption is empty"):
        tiny_system.text_diff(drawing, target=" ")
    with pytest.raises(ValueError, match="same to CLIP"):
        tiny_system.text_diff(drawing, source="A red apple", target="a red  apple")
