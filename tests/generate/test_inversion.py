"""Inversion: x_T draws the picture again, the more steps the better; what comes back is the picture."""

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.diffusion.parametrization import ProcessConfig
from unclip.generate.inversion import inversion_grid, inversion_settings, psnr
from unclip.generate.picture import Picture
from unclip.images import PictureError


def same(a: Picture, b: Picture) -> bool:
    return a.image.tobytes() == b.image.tobytes()


def test_more_steps_bring_the_reconstruction_nearer(gaussian_system, drawing):
    ratios = [
        gaussian_system.reconstruct(drawing, seed=1, steps=steps).recipe["psnr"] for steps in (2, 8, 40)
    ]
    assert ratios == sorted(ratios)
    assert ratios[-1] > ratios[0] + 3


def test_a_reconstruction_is_the_picture(gaussian_system, drawing):
    again = gaussian_system.reconstruct(drawing, seed=1, size=16, steps=100)
    difference = np.asarray(again.image, float) - np.asarray(
        drawing.resize((16, 16), Image.Resampling.BICUBIC), float
    )
    assert np.sqrt((difference**2).mean()) < 8
    assert again.recipe["psnr"] > 30


def test_inverted_noise_has_the_units_of_noise(gaussian_system, drawing):
    z_i, x_T = gaussian_system.invert(drawing, steps=20)
    assert torch.equal(z_i, gaussian_system.embed_image(drawing)[0])
    assert x_T.shape == (3, 16, 16)
    assert 0.2 < x_T.std() < 5
    assert not x_T.requires_grad


def test_guidance_of_the_inversion_is_that_of_the_drawing(gaussian_system, drawing):
    led = gaussian_system.reconstruct(drawing, seed=1, size=16, steps=60, guidance=2.0)
    assert led.recipe["guidance"] == 2.0
    assert led.recipe["psnr"] > 20


def test_only_ddim_can_be_inverted(gaussian_system, drawing):
    with pytest.raises(ValueError, match="'heun' cannot be inverted"):
        gaussian_system.invert(drawing, sampler="heun")
    settings = inversion_settings(gaussian_system.defaults, {"steps": None, "sampler": "euler"})
    assert (settings.steps, settings.sampler, settings.guidance) == (25, "euler", 1.0)


def test_psnr_is_decibels_of_the_range():
    a = torch.zeros(3, 4, 4)
    assert psnr(a, a) == 100.0
    assert psnr(a, a + 0.2) == pytest.approx(20.0, abs=1e-4)


def test_a_picture_may_be_a_file_bytes_or_in_memory_and_any_shape(tiny_system, drawing, tmp_path):
    wide = Image.new("RGB", (80, 40), "white")
    wide.paste(drawing.resize((40, 40)), (20, 0))
    path = tmp_path / "wide.png"
    wide.save(path)
    made = [
        tiny_system.reconstruct(one, seed=1, steps=2)
        for one in (path, str(path), path.read_bytes(), wide, Picture(image=wide, recipe={}))
    ]
    assert all(same(one, made[0]) and one.recipe == made[0].recipe for one in made)


def test_what_is_no_picture_is_refused(tiny_system, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("hello")
    with pytest.raises(PictureError, match=r"text\.png is not a PNG"):
        tiny_system.invert(text)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tiny_system.invert(tmp_path / "nowhere.png")
    moving = tmp_path / "moving.webp"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match="animated"):
        tiny_system.invert(moving)
    with Image.open(moving) as opened, pytest.raises(PictureError, match="animated"):
        tiny_system.invert(opened)
    with pytest.raises(PictureError, match="megapixels"):
        tiny_system.invert(Image.new("L", (9000, 9000)))


def test_a_network_that_predicts_x0_is_not_asked_about_hardly_any_noise():
    flow, table = (
        ProcessConfig(parametrization=name, schedule=schedule).build()
        for name, schedule in (("x0", "flow"), ("eps", "cosine"))
    )
    grid = inversion_grid(flow, 40)
    assert grid[-2:].tolist() == [0.1, 0.0]
    assert (grid.diff() < 0).all()
    assert torch.equal(grid[:-2], flow.grid(40)[: len(grid) - 2])
    assert torch.equal(inversion_grid(table, 40), table.grid(40))
