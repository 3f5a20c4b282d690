"""Kandinsky from end to end against diffusers' pipelines, from the same noise: a seed gives the same picture.

Without clamped estimates, random nets drive latents to 1/sqrt(abar) = 25, and MoVQ's pictures far out of their range. So
latents are compared, in units of their standard deviation, and pictures in [-1, 1] where latents are clamped. diffusers'
noise tables are float32; here they are lifted to float64, and what is left is rounding.
"""

import copy
import shutil
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, KandinskyV22Img2ImgPipeline
from PIL import Image as Pillow
from torch import Tensor

import unclip
from unclip import Model
from unclip.errors import RequestError
from unclip.generate.session import Session
from unclip.images.tensors import to_tensor
from unclip.stages.conditioner import Condition
from unclip.stages.extent import Extent
from unclip.stages.inpainting import InpaintingReference
from unclip.stages.sampling import sampling

STEPS = {"prior_steps": 3, "steps": 4}
LATENTS, PIXELS = 2e-4, 5e-4
"""Largest differences; LATENTS in standard deviations."""


class Drawn(NamedTuple):
    """Latents, and their pictures in [-1, 1]."""

    latents: Tensor
    pixels: Tensor


@contextmanager
def watched(owner: Any, name: str = "decode"):
    """Keeps what a method is given and what it gives."""
    kept, method = [], getattr(owner, name)

    def watching(given, *more, **options):
        found = method(given, *more, **options)
        kept.append((given, found))
        return found

    setattr(owner, name, watching)
    try:
        yield kept
    finally:
        delattr(owner, name)


@pytest.fixture(scope="module")
def models(folders) -> dict[tuple[str, str], Model]:
    """Models of both versions: decoders with their prior."""
    return {
        (version, name): unclip.load(folders[version, name], prior=folders[version, "prior"], device="cpu")
        for version in ("2.1", "2.2")
        for name in ("decoder", "inpaint")
    }


@pytest.fixture(scope="module")
def picture() -> Pillow.Image:
    """A picture of smooth colours."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Pillow.fromarray(noise).resize((64, 64), Pillow.Resampling.BICUBIC)


def ours(model: Model, kind: str, *sources, **given) -> Drawn:
    """What a model draws."""
    with watched(model.parts.codec) as kept:
        getattr(model, kind)(*sources, **{"random": "diffusers"} | STEPS | given)
    return Drawn(*kept[-1])


def theirs(pipelines, lifted, version: str, name: str, **given) -> Drawn:
    """What one of their decoders draws."""
    pipeline = pipelines[version, name]
    if version == "2.2":
        given = {key: value for key, value in given.items() if key not in ("prompt", "negative_prompt")}
    size = {"height": 64, "width": 64, "num_inference_steps": 4, "output_type": "pt"}
    with lifted(pipeline, ["scheduler"]), watched(pipeline.movq) as kept:
        pipeline(**size | given)
    latents, found = kept[-1]
    pixels = found["sample"]
    return Drawn(latents, pixels.clamp(-1, 1))


def embeddings(
    pipelines, lifted, version: str, prompt: str, generator, negative: str | None = None
) -> dict[str, Tensor]:
    """What their prior makes of a prompt."""
    pipeline = pipelines[version, "prior"]
    with lifted(pipeline, ["scheduler"]):
        found = pipeline(prompt, negative_prompt=negative, num_inference_steps=3, generator=generator)
    return {"image_embeds": found.image_embeds, "negative_image_embeds": found.negative_image_embeds}


def apart(one: Drawn, other: Drawn) -> tuple[float, float]:
    """Largest differences of latents, in standard deviations, and of pictures."""
    latents = (one.latents - other.latents).abs().max() / other.latents.std()
    return float(latents), float((one.pixels - other.pixels).abs().max())


@pytest.mark.parametrize("negative", [None, "a dog"])
@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_text_to_image(models, pipelines, lifted, version, negative):
    model, prompt, generator = models[version, "decoder"], "a red cat", torch.Generator().manual_seed(5)
    made = embeddings(pipelines, lifted, version, prompt, generator, negative)
    expected = theirs(
        pipelines,
        lifted,
        version,
        "decoder",
        prompt=prompt,
        negative_prompt=negative,
        generator=generator,
        **made,
    )
    latents, pixels = apart(ours(model, "generate", prompt, seed=5, size=64, negative=negative), expected)
    assert latents < LATENTS
    assert pixels < (PIXELS if version == "2.2" else 2e-2)
    # The controls: another seed, and without the negative prompt.
    assert apart(ours(model, "generate", prompt, seed=6, size=64), expected)[0] > 0.1
    if negative:
        assert apart(ours(model, "generate", prompt, seed=5, size=64), expected)[0] > 0.1


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_text_to_image_of_another_shape(models, pipelines, lifted, version):
    model, prompt, generator = models[version, "decoder"], "a red cat", torch.Generator().manual_seed(5)
    made = embeddings(pipelines, lifted, version, prompt, generator)
    expected = theirs(
        pipelines, lifted, version, "decoder", prompt=prompt, generator=generator, width=128, **made
    )
    assert expected.latents.shape[-2:] == (8, 16)
    latents, pixels = apart(ours(model, "generate", prompt, seed=5, size=(64, 128)), expected)
    assert latents < LATENTS
    assert pixels < (PIXELS if version == "2.2" else 5e-2)


@pytest.mark.parametrize(
    "options",
    [
        {
            "variance_type": "learned_range",
            "thresholding": True,
            "sample_max_value": 2.0,
            "clip_sample": False,
        },
        {"variance_type": "learned_range", "clip_sample": True, "clip_sample_range": 2.0},
        {
            "thresholding": True,
            "dynamic_thresholding_ratio": 0.9,
            "sample_max_value": 3.0,
            "clip_sample": True,
        },
        {"variance_type": "fixed_small_log", "clip_sample": True, "timestep_spacing": "trailing"},
    ],
    ids=["learned, thresholded", "learned, clamped", "thresholded", "logarithm"],
)
def test_options_of_ddpm(folders, pipelines, lifted, tmp_path, monkeypatch, options):
    """The scheduler of Kandinsky 2.1's own code, with each of its options."""
    folder = shutil.copytree(folders["2.1", "decoder"], tmp_path / "decoder")
    other = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, **options
    )
    other.save_pretrained(folder / "scheduler")
    pipeline = pipelines["2.1", "decoder"]
    monkeypatch.setattr(pipeline, "scheduler", other)
    # Variances within their range, as trained nets have them: diffusers adds noise in the last step, too, where they are near 0.
    unet = copy.deepcopy(pipeline.unet)
    with torch.no_grad():
        unet.conv_out.weight[4:] *= 0.05
        unet.conv_out.bias[4:] = -0.3
    unet.save_pretrained(folder / "unet")
    monkeypatch.setattr(pipeline, "unet", unet)
    model = unclip.load(folder, prior=folders["2.1", "prior"], device="cpu")
    prompt, generator = "a red cat", torch.Generator().manual_seed(5)
    made = embeddings(pipelines, lifted, "2.1", prompt, generator)
    expected = theirs(pipelines, lifted, "2.1", "decoder", prompt=prompt, generator=generator, **made)
    assert apart(ours(model, "generate", prompt, seed=5, size=64), expected)[0] < 2e-4


def drawn_by(model: Model, draw, **settings) -> Drawn:
    """What `draw(session, seeds)` draws with diffusers' order of draws."""
    resolved = sampling(**STEPS, random="diffusers", **settings).over(model.defaults)
    session = Session(model.parts, resolved, seed=5)
    with watched(model.parts.codec) as kept, torch.no_grad():
        draw(session, session.seeds([5]))
    return Drawn(*kept[-1])


def conditions(
    pipelines, lifted, session: Session, version: str, prompt: str
) -> tuple[dict[str, Tensor], Condition]:
    """The embeddings of a prompt for their decoder, and the same for ours."""
    made = embeddings(pipelines, lifted, version, prompt, torch.Generator().manual_seed(1))
    captions = session.captions([prompt])
    return made, Condition(z_i=made["image_embeds"], captions=captions, z_null=made["negative_image_embeds"])


@pytest.mark.parametrize("strength", [0.3, 0.5, 1.0])
def test_image_to_image(models, pipelines, lifted, picture, strength):
    """Of 2.2: that of 2.1 adds noise by another table than it removes it with."""
    model, pipeline = models["2.2", "decoder"], pipelines["2.2", "decoder"]
    other = KandinskyV22Img2ImgPipeline(**pipeline.components)
    other.set_progress_bar_config(disable=True)
    session = Session(model.parts, model.defaults, seed=5)
    made, condition = conditions(pipelines, lifted, session, "2.2", "a red cat")
    expected = theirs(
        {("2.2", "decoder"): other},
        lifted,
        "2.2",
        "decoder",
        image=picture,
        strength=strength,
        generator=torch.Generator().manual_seed(5),
        **made,
    )
    start = to_tensor(picture)[None]
    actual = drawn_by(
        model,
        lambda session, seeds: session.decode(condition, seeds, start=start, strength=strength, size=64),
    )
    latents, pixels = apart(actual, expected)
    assert latents < LATENTS
    assert pixels < PIXELS


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_inpainting(models, pipelines, lifted, picture, version):
    model = models[version, "inpaint"]
    session = Session(model.parts, model.defaults, seed=5)
    made, condition = conditions(pipelines, lifted, session, version, "a red cat")
    # White is drawn; in whole latents, where both agree on which are known.
    hole = torch.zeros(64, 64)
    hole[16:40, 24:48] = 1
    expected = theirs(
        pipelines,
        lifted,
        version,
        "inpaint",
        prompt="a red cat",
        image=picture,
        mask_image=hole.numpy().astype(np.float32),
        generator=torch.Generator().manual_seed(5),
        **made,
    )
    known = InpaintingReference(to_tensor(picture)[None], 1 - hole[None, None])
    actual = drawn_by(
        model, lambda session, seeds: session._fill_small(known, Extent(64, 64), None, condition, seeds, 0)
    )
    latents, pixels = apart(actual, expected)
    assert latents < LATENTS
    assert pixels < 2e-2


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_variations(models, pipelines, lifted, picture, version):
    """A picture's own embedding, against guidance from the grey picture's."""
    model, prior = models[version, "decoder"], pipelines[version, "prior"]
    given = prior.image_processor(picture, return_tensors="pt").pixel_values
    with torch.no_grad():
        z_i, grey = prior.image_encoder(given).image_embeds, prior.get_zero_embed()
    expected = theirs(
        pipelines,
        lifted,
        version,
        "decoder",
        prompt="",
        image_embeds=z_i,
        negative_image_embeds=grey,
        generator=torch.Generator().manual_seed(5),
    )
    latents, _ = apart(ours(model, "vary", picture, n=1, seed=5, size=64), expected)
    assert latents < LATENTS


def test_weighted_sums(models, pipelines, picture):
    """Kandinsky's interpolation is a sum of embeddings, the paper's follows the arc between them."""
    model, other = models["2.2", "decoder"], picture.transpose(Pillow.Transpose.ROTATE_180)
    found = pipelines["2.2", "prior"].interpolate([picture, other], [0.7, 0.3]).image_embeds[0]
    given = {"thetas": (0.3,), "noise": "fixed", "size": 64, "seed": 1, "steps": 1}
    (made,) = model.interpolate(picture, other, path="line", **given)
    torch.testing.assert_close(made.embedding, found, atol=1e-4, rtol=0)
    (made,) = model.interpolate(picture, other, **given)
    assert (made.embedding - found).abs().max() > 1e-3


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_every_operation(models, picture, version):
    model, inpainting = models[version, "decoder"], models[version, "inpaint"]
    few: dict[str, Any] = {"seed": 1, "steps": 2, "prior_steps": 2}
    one, drawn = {"size": 64}, []
    drawn += model.generate("a cat", **few, **one)
    drawn += model.interpolate(picture, drawn[0].image, frames=2, seed=1, steps=3, **one)
    drawn += model.text_diff(picture, "a dog", frames=2, seed=1, steps=3, **one)
    drawn += model.redraw(picture, "a cat", **few, **one)
    for editing in (model, inpainting):
        (edited,) = editing.edit(picture, (8, 8, 40, 48), "a cat", **few)
        kept, given = np.asarray(edited.image).copy(), np.asarray(picture).copy()
        assert not np.array_equal(kept, given)
        kept[8:48, 8:40] = given[8:48, 8:40] = 0
        assert np.array_equal(kept, given)
        drawn.append(edited)
        wide = editing.outpaint(picture, "a cat", right=16, seed=1, steps=3, prior_steps=2)
        assert wide.image.size == (80, 64)
        assert wide.image.crop((0, 0, 64, 64)).tobytes() == picture.tobytes()
    assert all(image.image.size == (64, 64) for image in drawn)
    # A path begins at the picture itself: its (z_i, x_T) gives it back.
    again = model.redo(drawn[0].provenance)
    assert again.image.tobytes() == drawn[0].image.tobytes()


def test_a_picture_comes_back_from_its_embedding_and_noise(folders, picture):
    """Though its latents lie outside of the range that sampling clamps them to."""
    model = unclip.load(folders["2.2", "decoder"], prior=folders["2.2", "prior"], device="cpu")
    with torch.no_grad(), model.parts.lend("decoder", torch.nn.Module) as decoder:
        # A random net's answer is no smooth function of the noise level: let it be small.
        decoder.net.exit.weight.mul_(0.005)
        latents = model.parts.codec.encode(to_tensor(picture)[None])
    beyond = latents.abs().max() - 1
    assert beyond > 0.1
    with watched(model.parts.codec) as kept:
        (made,) = [model.reconstruct(picture, steps=15, size=64)]
    assert (kept[-1][0] - latents).abs().max() < 0.5 * beyond
    assert made.provenance["results"]["psnr"] > 10
    assert model.invert(picture, steps=15).x_T.shape == (4, 8, 8)


def test_sizes(models):
    assert models["2.2", "decoder"].sizes == [64]
    (made,) = models["2.2", "decoder"].generate("a cat", size=128, steps=1, prior_steps=1, seed=1)
    assert made.image.size == (128, 128)
    with pytest.raises(RequestError, match="multiples of 64 up to 4096, not 100: 128 is the nearest"):
        models["2.2", "decoder"].generate("a cat", size=100)
    with pytest.raises(RequestError, match="not 90x64: 64x64 is the nearest"):
        models["2.2", "decoder"].generate("a cat", size=(64, 90))
