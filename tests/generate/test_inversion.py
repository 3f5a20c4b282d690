"""Inversion: x_T draws the picture again, the more steps the better; what comes back is the picture."""

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.errors import RequestError
from unclip.generate.image import Image as Result
from unclip.generate.operations import Reconstruct
from unclip.images import PictureError
from unclip.stages.likeness import psnr
from unclip.stages.sampling import sampling


def same(a: Result, b: Result) -> bool:
    return a.image.tobytes() == b.image.tobytes()


def test_more_steps_bring_the_reconstruction_nearer(gaussian_model, drawing):
    ratios = [
        gaussian_model.reconstruct(drawing, seed=1, steps=steps).provenance["results"]["psnr"]
        for steps in (2, 8, 40)
    ]
    assert ratios == sorted(ratios)
    assert ratios[-1] > ratios[0] + 3


def test_a_reconstruction_is_the_picture(gaussian_model, drawing):
    again = gaussian_model.reconstruct(drawing, seed=1, size=16, steps=100)
    difference = np.asarray(again.image, float) - np.asarray(
        drawing.resize((16, 16), Image.Resampling.BICUBIC), float
    )
    assert np.sqrt((difference**2).mean()) < 8
    assert again.provenance["results"]["psnr"] > 30


def test_inverted_noise_has_the_units_of_noise(gaussian_model, drawing):
    z_i, x_T = gaussian_model.invert(drawing, steps=20)
    assert torch.equal(z_i, gaussian_model.embed_image(drawing)[0])
    assert x_T.shape == (3, 16, 16)
    assert 0.2 < x_T.std() < 5
    assert not x_T.requires_grad


def test_guidance_of_the_inversion_is_that_of_the_drawing(gaussian_model, drawing):
    led = gaussian_model.reconstruct(drawing, seed=1, size=16, steps=60, guidance=2.0)
    assert led.provenance["request"]["sampling"]["decoder"]["guidance"] == 2.0
    assert led.provenance["results"]["psnr"] > 20


def test_only_ddim_can_be_inverted(gaussian_model, drawing):
    with pytest.raises(RequestError, match="'heun' cannot be inverted: leave it out, or give 'ddim'"):
        gaussian_model.invert(drawing, sampler="heun")
    with pytest.raises(RequestError, match="'heun' cannot be inverted"):
        gaussian_model.reconstruct(drawing, sampler="heun")
    given = sampling(steps=None, sampler="euler")
    found = Reconstruct(sampling=given).resolve(gaussian_model.defaults).decoder
    assert (found.steps, found.sampler, found.guidance) == (25, "ddim", 1.0)


def test_psnr_is_decibels_of_the_range():
    a = torch.zeros(3, 4, 4)
    assert psnr(a, a) == 100.0
    assert psnr(a, a + 0.2) == pytest.approx(20.0, abs=1e-4)


def test_a_picture_may_be_a_file_bytes_or_in_memory_and_any_shape(tiny_model, drawing, tmp_path):
    wide = Image.new("RGB", (80, 40), "white")
    wide.paste(drawing.resize((40, 40)), (20, 0))
    path = tmp_path / "wide.png"
    wide.save(path)
    made = [
        tiny_model.reconstruct(one, seed=1, steps=2)
        for one in (path, str(path), path.read_bytes(), wide, Result(image=wide, provenance={}))
    ]
    assert all(same(one, made[0]) and one.provenance == made[0].provenance for one in made)


def test_what_is_no_picture_is_refused(tiny_model, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("hello")
    with pytest.raises(PictureError, match=r"text\.png is not a PNG"):
        tiny_model.invert(text)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tiny_model.invert(tmp_path / "nowhere.png")
    moving = tmp_path / "moving.webp"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match="animated"):
        tiny_model.invert(moving)
    with Image.open(moving) as opened, pytest.raises(PictureError, match="animated"):
        tiny_model.invert(opened)
    with pytest.raises(PictureError, match="megapixels"):
        tiny_model.invert(Image.new("L", (9000, 9000)))
