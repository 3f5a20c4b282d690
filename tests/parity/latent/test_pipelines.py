"""Whole pipelines of latent models against diffusers', from the same seed in the same order of draws, in float32."""

import shutil
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from PIL import Image

from tests.parity.latent.conftest import SCHEDULE, picture, quiet
from unclip.generate.model import Model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TOLERANCE = 1e-4
"""On pixels in [0, 1]: noise tables are float64 here and float32 there. Measured differences are below 2e-5."""


def run(pipeline: Any, seed: int = 7, **options: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        # Of diffusers and numpy about each other.
        warnings.simplefilter("ignore")
        return pipeline(generator=generator, output_type="np", **options).images[0]


def pixels(model: Model, monkeypatch: pytest.MonkeyPatch, call: Any) -> np.ndarray:
    """What a call draws, in [0, 1], before it is rounded to 8 bits."""
    seen = []
    codec = model.parts.codec
    decode = codec.decode

    def watched(state, *finished):
        seen.append(decode(state, *finished))
        return seen[-1]

    with monkeypatch.context() as patch:
        patch.setattr(codec, "decode", watched)
        call(model)
    return (seen[-1][0].permute(1, 2, 0).numpy() + 1) / 2


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    difference = float(np.abs(found - wanted).max())
    assert wanted.std() > 0.2
    assert difference < TOLERANCE


def load(folder) -> Model:
    return Model.load(folder, device="cpu")


QUICK = {"random": "diffusers", "seed": 7, "steps": 5}


@pytest.mark.parametrize("name", ["sd1", "sd2"])
@pytest.mark.parametrize("negative", [None, "a dog"])
def test_text_to_image(saved, monkeypatch, name, negative):
    pipeline, folder = saved(name)
    wanted = run(pipeline, prompt="a red cat", negative_prompt=negative, num_inference_steps=5)
    found = pixels(
        load(folder), monkeypatch, lambda one: one.generate("a red cat", negative=negative, **QUICK)
    )
    assert found.shape == wanted.shape == (64, 64, 3)
    assert wanted.std() > 0.05
    close(found, wanted)


SCHEDULERS: list[tuple[Any, dict[str, Any]]] = [
    (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    (EulerDiscreteScheduler, {}),
    (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
]
MORE: list[tuple[Any, dict[str, Any]]] = [
    (DDIMScheduler, {"clip_sample": True, "set_alpha_to_one": True, "timestep_spacing": "trailing"}),
    (PNDMScheduler, {"skip_prk_steps": True, "timestep_spacing": "trailing"}),
    (EulerDiscreteScheduler, {"timestep_spacing": "leading"}),
    (EulerDiscreteScheduler, {"timestep_spacing": "trailing", "use_karras_sigmas": True}),
    (EulerAncestralDiscreteScheduler, {}),
    (HeunDiscreteScheduler, {}),
    (HeunDiscreteScheduler, {"use_karras_sigmas": True}),
    (DPMSolverMultistepScheduler, {}),
    (DPMSolverMultistepScheduler, {"timestep_spacing": "leading"}),
    (DPMSolverMultistepScheduler, {"timestep_spacing": "trailing"}),
    (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [*SCHEDULERS, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE)],
    ids=lambda one: one.__name__ if isinstance(one, type) else "-".join(map(str, one.values())) or "default",
)
def test_every_scheduler(saved, monkeypatch, tmp_path, kind, options, prediction):
    pipeline, folder = saved("sd1")
    copied = shutil.copytree(folder, tmp_path / "model")
    other = kind(**SCHEDULE, **options, prediction_type=prediction)
    other.save_pretrained(copied / "scheduler")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = {**pipeline.components, "scheduler": other}
        changed = quiet(type(pipeline)(**parts, requires_safety_checker=False))
    wanted = run(changed, prompt="a red cat", num_inference_steps=5)
    found = pixels(load(copied), monkeypatch, lambda one: one.generate("a red cat", **QUICK))
    close(found, wanted)


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_image_to_image(saved, monkeypatch, name):
    pipeline, folder = saved(name)
    parts = {**pipeline.components, "scheduler": DDIMScheduler.from_config(pipeline.scheduler.config)}
    parts["scheduler"] = DDIMScheduler(
        **SCHEDULE,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type=pipeline.scheduler.config.prediction_type,
    )
    changed = quiet(StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False))
    wanted = run(changed, prompt="a red cat", image=picture(), strength=0.7, num_inference_steps=10)
    found = pixels(
        load(folder),
        monkeypatch,
        lambda one: one.redraw(
            picture(), "a red cat", strength=0.7, **{**QUICK, "steps": 10}, sampler="ddim"
        ),
    )
    close(found, wanted)


def mask() -> Image.Image:
    drawn = Image.new("L", (64, 64), 0)
    drawn.paste(255, (16, 8, 48, 40))
    return drawn


@pytest.mark.parametrize("name", ["inpaint", "sd2"])
def test_inpainting_by_nine_channels_and_by_known_latents(saved, monkeypatch, name):
    pipeline, folder = saved(name)
    if name != "inpaint":
        pipeline = quiet(StableDiffusionInpaintPipeline(**pipeline.components, requires_safety_checker=False))
    wanted = run(
        pipeline,
        prompt="a red cat",
        image=picture(),
        mask_image=mask(),
        strength=1.0,
        height=64,
        width=64,
        num_inference_steps=5,
    )
    found = pixels(load(folder), monkeypatch, lambda one: one.edit(picture(), mask(), "a red cat", **QUICK))
    close(found, wanted)


@pytest.mark.parametrize("level", [0, 300])
def test_unclip_variations(saved, monkeypatch, level):
    pipeline, folder = saved("unclip h")
    wanted = run(pipeline, prompt="", image=picture(32), noise_level=level, num_inference_steps=5)
    found = pixels(
        load(folder), monkeypatch, lambda one: one.vary(picture(32), n=1, noise_level=level, **QUICK)
    )
    close(found, wanted)


def test_unclip_from_text_by_its_prior(saved, monkeypatch):
    pipeline, folder = saved("unclip l")
    steps = {"num_inference_steps": 5, "prior_num_inference_steps": 5}
    wanted = run(pipeline, prompt="a red cat", **steps)
    found = pixels(load(folder), monkeypatch, lambda one: one.generate("a red cat", prior_steps=5, **QUICK))
    close(found, wanted)


# Pictures that are not squares: 96 x 64, and 64 x 96.


@pytest.mark.parametrize(
    ("name", "height", "width"), [("sd1", 64, 96), ("sd2", 96, 64), ("unclip h", 64, 96)]
)
def test_text_to_image_of_other_shapes(saved, monkeypatch, name, height, width):
    pipeline, folder = saved(name)
    if name == "unclip h":
        wanted = run(
            pipeline, image=picture(32), prompt="", height=height, width=width, num_inference_steps=5
        )
        found = pixels(
            load(folder), monkeypatch, lambda one: one.vary(picture(32), n=1, size=(height, width), **QUICK)
        )
    else:
        wanted = run(pipeline, prompt="a red cat", height=height, width=width, num_inference_steps=5)
        found = pixels(
            load(folder), monkeypatch, lambda one: one.generate("a red cat", size=(height, width), **QUICK)
        )
    assert wanted.shape == (height, width, 3)
    close(found, wanted)


def test_image_to_image_of_another_shape(saved, monkeypatch):
    pipeline, folder = saved("sd2")
    changed = quiet(StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False))
    given = picture(96, 64)
    wanted = run(changed, prompt="a red cat", image=given, strength=0.7, num_inference_steps=10)
    found = pixels(
        load(folder),
        monkeypatch,
        lambda one: one.redraw(given, "a red cat", strength=0.7, size=(64, 96), **{**QUICK, "steps": 10}),
    )
    close(found, wanted)


@pytest.mark.parametrize("name", ["inpaint", "sd2"])
def test_inpainting_of_another_shape(saved, monkeypatch, name):
    pipeline, folder = saved(name)
    if name != "inpaint":
        pipeline = quiet(StableDiffusionInpaintPipeline(**pipeline.components, requires_safety_checker=False))
    given, hole = picture(96, 64), Image.new("L", (96, 64), 0)
    hole.paste(255, (16, 8, 80, 40))
    wanted = run(
        pipeline,
        prompt="a red cat",
        image=given,
        mask_image=hole,
        strength=1.0,
        height=64,
        width=96,
        num_inference_steps=5,
    )
    found = pixels(load(folder), monkeypatch, lambda one: one.edit(given, hole, "a red cat", **QUICK))
    close(found, wanted)


@pytest.mark.parametrize("rescale", [0.7, 1.0])
def test_guidance_rescale(saved, monkeypatch, rescale):
    """Of what the network predicts, v here, and not of the clean estimate."""
    pipeline, folder = saved("sd2")
    given = {"prompt": "a red cat", "guidance_scale": 7.5, "num_inference_steps": 5}
    wanted = run(pipeline, guidance_rescale=rescale, **given)
    assert np.abs(run(pipeline, **given) - wanted).max() > 0.1
    model = load(folder)
    close(
        pixels(model, monkeypatch, lambda one: one.generate("a red cat", guidance_rescale=rescale, **QUICK)),
        wanted,
    )
    made = model.generate("a red cat", guidance_rescale=rescale, **QUICK)[0]
    assert made.provenance["request"]["sampling"]["decoder"]["guidance_rescale"] == rescale
    assert np.array_equal(np.asarray(model.redo(made.provenance).image), np.asarray(made.image))
