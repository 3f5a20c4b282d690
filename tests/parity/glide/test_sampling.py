"""GLIDE from end to end against the reference beside this file, from the same noise and with its own tables."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import unclip
from unclip import Model
from unclip.errors import Unsupported
from unclip.formats import glide
from unclip.formats.glide import DEFAULTS, INPAINTING_DEFAULTS
from unclip.generate.session import Session
from unclip.rng import Noise
from unclip.stages.conditioner import Condition
from unclip.stages.extent import Extent
from unclip.stages.families.glide import fast27
from unclip.stages.inpainting import InpaintingReference
from unclip.stages.noise import Seeds
from unclip.stages.sampling import sampling
from unclip.tokenizers.glide import GlideTokenizer

PROMPT, NEGATIVE = "A red cat", "a dog"


@pytest.fixture(scope="module")
def tokenizer(words) -> GlideTokenizer:
    return GlideTokenizer(*words, context=12)


@pytest.fixture(scope="module")
def models(networks, tokenizer) -> dict[bool, Model]:
    """Models without and with inpainting nets."""
    made = {}
    for inpainting, defaults in ((False, DEFAULTS), (True, INPAINTING_DEFAULTS)):
        suffix = "_inpaint" * inpainting
        parts = {"decoder": networks[f"base{suffix}"], "upsampler": networks[f"upsample{suffix}"]}
        made[inpainting] = Model.of(parts, tokenizer, defaults=defaults)
    return made


@pytest.fixture(scope="module")
def predictors(nets, tokenizer):
    """`predictors(name, prompt, extra)`: the reference's answer for x and times, beside further channels."""

    def make(name: str, prompt: str, extra: Tensor | None = None):
        tokens = tokenizer.encode([prompt])

        def predict(x: Tensor, times: Tensor) -> Tensor:
            read = x if extra is None else torch.cat([x, extra.to(x)], dim=1)
            return nets[name](read.float(), times, tokens, tokens != tokenizer.padding).to(x)

        return predict

    return make


def guided(one, other, scale: float):
    """Guidance of eps; the variance is that of the caption."""

    def predict(x: Tensor, times: Tensor) -> Tensor:
        caption, without = one(x, times), other(x, times)
        eps = without[:, :3] + scale * (caption[:, :3] - without[:, :3])
        return torch.cat([eps, caption[:, 3:]], dim=1)

    return predict


def draws(noise: Noise):
    return lambda x: noise.normal(*x.shape[1:]).to(x)


def session_of(model: Model, **settings) -> Session:
    return Session(model.parts, sampling(**settings).over(model.defaults), seed=3)


@torch.no_grad()
@pytest.mark.parametrize("negative", ["", NEGATIVE])
def test_text_to_image_at_the_bases_size(models, predictors, reference, negative):
    session, noise = session_of(models[False], steps=5), Seeds([3]).stage("decoder")
    start = noise.normal(3, 32, 32).double()
    predict = guided(predictors("base", PROMPT), predictors("base", negative), 3.0)
    times, betas = reference.sections(5), reference.cosine_betas()
    expected = reference.sample(predict, start, betas, times, draws(noise))
    captions = session.captions([PROMPT])
    condition = Condition(captions=captions, negative=session.captions([negative]) if negative else None)
    actual = session.decode(condition, session.seeds([3]))
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() < 1e-4
    other = session.decode(Condition(captions=session.captions(["cat"])), session.seeds([3]))
    assert (other - expected).abs().max() > 1e-2


def test_the_authors_27_steps(models, reference):
    table = models[False].parts.config("upsampler").process.build().table
    levels = fast27(table)
    expected = table.sigmas[torch.tensor(reference.FAST27[::-1])]
    assert torch.equal(levels, torch.cat([expected, torch.zeros(1, dtype=expected.dtype)]))
    # As the authors list them.
    assert reference.FAST27[::-1][:7] == [997, 800, 799, 600, 599, 500, 400]


@torch.no_grad()
def test_the_upsampler_reads_the_caption(models, predictors, reference):
    session, noise = session_of(models[False]), Seeds([3]).stage("upsampler 128")
    low = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    eighths = ((low + 1) * 127.5).round() / 127.5 - 1
    extra = F.interpolate(eighths, (128, 128), mode="bilinear", align_corners=False)
    start = 0.997 * noise.normal(3, 128, 128).double()
    times = reference.FAST27
    expected = reference.sample(
        predictors("upsample", PROMPT, extra), start, reference.linear_betas(), times, draws(noise), ddim=True
    )
    captions = session.captions([PROMPT])
    actual = session.enlarge(low, session.seeds([3]), 128, captions=captions)
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() < 1e-3
    assert (session.enlarge(low, session.seeds([3]), 128) - expected).abs().max() > 1e-3


@torch.no_grad()
def test_inpainting(models, predictors, reference):
    """Of both networks that were trained to: the drawn pixels are the same, the known ones are pasted."""
    session = session_of(models[True], steps=5, upsampler_steps=4)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    mask = torch.ones(1, 1, 32, 32)
    mask[..., 8:24, 12:] = 0
    noise = Seeds([3], device=torch.device("cpu")).stage("decoder")
    start = noise.normal(3, 32, 32).double()
    extra = torch.cat([pixels * mask, mask], dim=1)
    predict = guided(predictors("base_inpaint", PROMPT, extra), predictors("base_inpaint", "", extra), 5.0)
    kept = {"known": pixels.double(), "mask": mask.double()}
    expected = reference.sample(
        predict, start, reference.cosine_betas(), reference.sections(5), draws(noise), **kept
    )
    known, condition = InpaintingReference(pixels, mask), Condition(captions=session.captions([PROMPT]))
    drawn = []
    follow = session._follow
    session._follow = lambda *given: drawn.append(follow(*given)) or drawn[-1]
    session._fill_small(known, Extent.of(known.pixels.shape[-1]), None, condition, session.streams(3), 0)
    hole = (1 - mask).bool().expand(1, 3, -1, -1)
    assert (drawn[-1] - expected)[hole].abs().max() < 1e-4
    # The upsampler, from pictures of its own.
    large, wide = F.interpolate(pixels, (128, 128)), F.interpolate(mask, (128, 128))
    noise = Seeds([3], device=torch.device("cpu")).stage("upsampler 128")
    start = 0.997 * noise.normal(3, 128, 128).double()
    eighths = ((pixels + 1) * 127.5).round() / 127.5 - 1
    extra = torch.cat(
        [large * wide, wide, F.interpolate(eighths, (128, 128), mode="bilinear", align_corners=False)], dim=1
    )
    expected = reference.sample(
        predictors("upsample_inpaint", PROMPT, extra),
        start,
        reference.linear_betas(),
        reference.sections(4),
        draws(noise),
        known=large.double(),
        mask=wide.double(),
    )
    actual = session.enlarge(
        pixels,
        session.streams(3),
        128,
        known=InpaintingReference(large, wide),
        captions=session.captions([PROMPT]),
    )
    hole = (1 - wide).bool().expand(1, 3, -1, -1)
    assert (actual - expected)[hole].abs().max() < 1e-4


def test_operations(models, tmp_path):
    """What it can do, and what it cannot for want of an image embedding."""
    model = models[False]
    steps = {"steps": 2, "upsampler_steps": 2, "seed": 1}
    (small,) = model.generate(PROMPT, size=32, **steps)
    (large,) = model.generate(PROMPT, negative=NEGATIVE, **steps)
    assert (small.image.size, large.image.size) == ((32, 32), (128, 128))
    assert large.embedding is None
    (again,) = [model.redo(large.provenance)]
    assert again.image.tobytes() == large.image.tobytes()
    for inpainting in (False, True):
        (edited,) = models[inpainting].edit(large.image, (40, 40, 100, 90), PROMPT, **steps)
        assert edited.image.size == (128, 128)
        assert edited.image.crop((0, 0, 40, 128)).tobytes() == large.image.crop((0, 0, 40, 128)).tobytes()
    assert model.redraw(large.image, PROMPT, **steps)[0].image.size == (128, 128)
    assert model.reconstruct(large.image, **steps).image.size == (128, 128)
    assert model.upscale(small.image, **steps).image.size == (128, 128)
    for act in (
        lambda: model.vary(large.image),
        lambda: model.interpolate(large.image, small.image),
        lambda: model.text_diff(large.image, PROMPT),
    ):
        with pytest.raises(Unsupported, match=r"has no (image|text) encoder"):
            act()


def test_from_the_released_files(tmp_path, monkeypatch, nets, sizes, words, tokenizer):
    """Converted and loaded, offloaded or not, they draw the same."""
    from unclip.formats.convert import convert

    monkeypatch.setattr(glide, "GLIDE", sizes)
    monkeypatch.setattr(glide, "tokenizer_at", lambda path: tokenizer)
    (source := tmp_path / "glide").mkdir()
    for name in ("base", "upsample"):
        torch.save(nets[name].state_dict(), source / f"{name}.pt")
    folder = convert(source, tmp_path / "out", tokenizer=source)
    drawn = []
    for offload in (False, True):
        model = unclip.load(folder, device="cpu", offload=offload)
        drawn.append(model.generate(PROMPT, steps=2, upsampler_steps=2, seed=1)[0].image.tobytes())
    assert drawn[0] == drawn[1]
