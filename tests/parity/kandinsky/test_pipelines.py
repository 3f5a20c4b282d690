"""Kandinsky from end to end against diffusers' pipelines, from the same noise: a seed gives the same picture.

Without clamped estimates, random nets drive latents to 1/sqrt(abar) = 25, and MoVQ's pictures far out of their range. So
latents are compared, in units of their standard deviation, and pictures in [-1, 1] where latents are clamped. diffusers'
noise tables are float32; here they are lifted to float64, and what is left is rounding.
"""

from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import KandinskyV22Img2ImgPipeline
from PIL import Image as Pillow
from torch import Tensor

import unclip
from unclip import Model
from unclip.generate.session import Session
from unclip.images.tensors import to_tensor
from unclip.stages.conditioner import Condition
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
    actual = drawn_by(model, lambda session, seeds: session._fill_small(known, None, condition, seeds, 0))
    latents, pixels = apart(actual, expected)
    assert latents < LATENTS
    assert pixels < 2e-2
