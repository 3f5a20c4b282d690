"""Batches of requests: each picture is the one that its request makes alone, to rounding."""

from dataclasses import replace

import pytest
import torch

from unclip.errors import RequestError
from unclip.generate.model import Model
from unclip.generate.operations import Generate
from unclip.generate.progress import Progress
from unclip.images.tensors import to_tensor
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerConfig
from unclip.stages.sampling import sampling
from unclip.tokenizers.clip import ClipTokenizer

LONG = "a red apple, " * 20


@pytest.fixture(scope="module")
def model(tiny) -> Model:
    """Random networks that make pictures of 16 and 32 pixels."""
    torch.manual_seed(0)
    tokenizer = ClipTokenizer.train(["a red apple", "a blue cat"], vocabulary=530, context=8)
    clip = tiny.clip(tokenizer)
    net = PatchTransformerConfig(size=16, patch=4, width=32, layers=1, head_channels=16, context_width=24)
    upsampler = UpsamplerConfig(
        net=UnetConfig(in_channels=6, channels=32, multiples=(1,), blocks=1),
        process=tiny.flow,
        low_size=16,
        high_size=32,
    )
    parts = {
        "clip": clip,
        "prior": tiny.prior(clip),
        "decoder": tiny.decoder(clip, net),
        "upsampler": Upsampler(upsampler),
    }
    quick = sampling(steps=2, prior_steps=2, upsampler_steps=2, guidance=2.0)
    return Model.of(tiny.shake(parts), tokenizer, defaults=quick)


def requests() -> list[Generate]:
    return [
        Generate(prompt="a red apple", seed=7),
        Generate(prompt=("a blue cat",), seed=2**40),
        Generate(prompt=LONG, seed=3, size=32),
    ]


@pytest.mark.parametrize(
    "changes", [{}, {"negative": "a cat"}, {"sampling": sampling(random="diffusers", candidates=1)}]
)
def test_each_picture_is_the_one_drawn_alone(model, changes):
    listed = [replace(one, **changes) for one in requests()]
    together = model.run_batch(listed)
    for request, picture in zip(listed, together, strict=True):
        (alone,) = model.run(request)
        assert (to_tensor(alone.image) - to_tensor(picture.image)).abs().max() <= 2 / 255 + 1e-6
        assert alone.provenance == picture.provenance
        assert alone.warnings == picture.warnings
        torch.testing.assert_close(alone.embedding, picture.embedding, rtol=1e-4, atol=1e-4)
    assert [len(one.warnings) for one in together] == [0, 0, 1]


def test_seeds_are_drawn_where_none_is_given(model):
    first, second = model.run_batch([Generate(prompt="a cat")] * 2)
    assert first.seed != second.seed
    (alone,) = model.run(Generate(prompt="a cat", seed=second.seed))
    assert (to_tensor(alone.image) - to_tensor(second.image)).abs().max() <= 2 / 255 + 1e-6


def test_progress_counts_the_batch_once(model):
    seen: list[Progress] = []
    model.run_batch(requests(), on_progress=seen.append)
    assert [one.stage for one in seen] == ["prior"] * 2 + ["decoder"] * 2 + ["upsampler"] * 2
    assert (seen[-1].fraction, seen[-1].pictures) == (1.0, 3)
    assert model.run_batch([]) == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Generate(prompt="a cat", size=16), "sizes 16, 32"),
        (Generate(prompt="a cat", negative="a dog"), "negative prompt"),
        (Generate(prompt="a cat", n=2), "set n to 1"),
        (Generate(prompt=("a cat", "a dog")), "give one prompt"),
        (Generate(prompt="a cat", sampling=sampling(steps=3)), "same sampling"),
        (Generate(prompt="a cat", size=17), "not 17"),
    ],
)
def test_requests_that_cannot_share_a_batch(model, other, message):
    with pytest.raises(RequestError, match=message):
        model.run_batch([*requests(), other])
