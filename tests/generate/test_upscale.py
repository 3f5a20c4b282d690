"""Enlarging pictures of any shape: sizes, tiles, provenance, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.errors import RequestError, Unsupported
from unclip.generate.model import Model
from unclip.networks.tiling import reach
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerConfig
from unclip.stages import cascade
from unclip.stages.cascade import plan_enlargement


@pytest.fixture(scope="module")
def enlarger(tiny, tiny_model) -> Model:
    """Two upsamplers and nothing else: by 2, then by 2."""
    torch.manual_seed(0)
    net = UnetConfig(in_channels=6, channels=8, multiples=(1, 2), blocks=1, norm="rms")
    process = tiny.flow
    parts = {
        f"upsampler_{high}": Upsampler(
            UpsamplerConfig(net=net, process=process, low_size=high // 2, high_size=high, residual=True)
        )
        for high in (32, 64)
    }
    with torch.no_grad():
        for part in parts.values():
            for parameter in part.parameters():
                parameter.normal_(std=0.1)
    return Model.of(parts, tiny_model.parts.tokenizer, name="enlarger", defaults=tiny_model.defaults)


def test_any_shape_is_enlarged(enlarger, drawing):
    picture = drawing.crop((0, 0, 31, 17))
    for size, expected in ((None, (62, 34)), (50, (50, 27)), (62, (62, 34)), (124, (124, 68))):
        made = enlarger.upscale(picture, size=size, seed=1)
        assert made.image.size == expected
        assert made.provenance["size"] == list(expected)


def test_the_upsampler_that_fits_begins(enlarger):
    first, second = enlarger.parts.cascade
    for longer, size, expected in (
        (10, None, [first]),
        (16, None, [first]),
        (16, 64, [first, second]),
        (20, 40, [first]),
        (20, 60, [first, second]),
        (32, None, [second]),
        (40, 80, [second]),
        (40, 81, [first, second]),
    ):
        found, target = plan_enlargement(enlarger.parts.cascade, longer, longer // 2, size)
        assert found == expected
        assert max(target) == (size or 2 * longer)


def test_each_upsampler_has_its_own_steps(enlarger, tiny_model, drawing):
    seen, small = [], drawing.resize((16, 16))
    settings = {"upsampler_steps": 2, "second_upsampler_steps": 3}
    made = enlarger.upscale(small, size=64, seed=1, on_progress=seen.append, **settings)
    assert [event.total for event in seen] == [2, 2, 3, 3, 3]
    assert seen[-1].fraction == 1.0
    recorded = made.provenance["request"]["sampling"]["upsamplers"]
    assert recorded[1] == {"steps": 3, "sampler": "ddim"}
    assert len(recorded) == 2
    (alone,) = tiny_model.upscale(small, seed=1).provenance["request"]["sampling"]["upsamplers"]
    assert alone["steps"] == 2


def test_settings_of_one_upsampler_serve_all(enlarger, drawing):
    made = enlarger.upscale(drawing.resize((16, 16)), size=64, seed=1, upsampler_steps=1)
    recorded = made.provenance["request"]["sampling"]["upsamplers"]
    assert [one["steps"] for one in recorded] == [1, 1]


def test_the_second_upsampler_draws_on_request_only(tiny, enlarger, tiny_model):
    parts = {**tiny.networks(tiny_model), "upsampler_64": tiny.networks(enlarger)["upsampler_64"]}
    model = Model.of(parts, tiny_model.parts.tokenizer, name="whole", defaults=tiny_model.defaults)
    assert model.sizes == [16, 32, 64]
    assert model.parts.default_size == 32
    small, large = (model.generate("a red apple", seed=1, size=size)[0] for size in (None, 64))
    assert [small.image.size, large.image.size] == [(32, 32), (64, 64)]
    shrunk = np.asarray(large.image.resize((32, 32)), int)
    assert np.abs(shrunk - np.asarray(small.image, int)).mean() < 64


def test_what_is_enlarged_is_the_picture(enlarger, drawing):
    made = np.asarray(enlarger.upscale(drawing, seed=1).image.resize(drawing.size), float)
    other = np.asarray(enlarger.upscale(drawing.rotate(90), seed=1).image.resize(drawing.size), float)
    original = np.asarray(drawing, float)
    assert (
        np.corrcoef(made.ravel(), original.ravel())[0, 1] > np.corrcoef(other.ravel(), original.ravel())[0, 1]
    )


def test_tiles_are_not_seen(enlarger, monkeypatch):
    ramp = Image.linear_gradient("L").resize((160, 12)).convert("RGB")
    assert 16 + 2 * reach(enlarger.parts.cascade[0].config.net) < 2 * 160
    pictures = []
    for tile in (512, 16):
        monkeypatch.setattr(cascade, "TILE", tile)
        pictures.append(np.asarray(enlarger.upscale(ramp, seed=1).image, int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


@pytest.mark.parametrize("width", [160, 480])
def test_no_piece_is_larger_than_a_tile_and_what_it_depends_on(tiny, enlarger, monkeypatch, width):
    """Memory is that of one piece, however large the picture."""
    monkeypatch.setattr(cascade, "TILE", 16)
    net, seen = tiny.networks(enlarger)["upsampler_64"].net, []
    hook = net.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[-2:]))
    ramp = Image.linear_gradient("L").resize((width, 12)).convert("RGB")
    enlarger.upscale(ramp, seed=1, second_upsampler_steps=1)
    hook.remove()
    assert len(seen) == 2 * 2 * width // 16
    divisor = net.config.divisor
    assert max(map(max, seen)) <= 16 + 2 * (reach(net.config) + divisor)


def test_provenance_makes_it_again(enlarger, drawing):
    made = enlarger.upscale(drawing, size=50, seed=1, upsampler_steps=1)
    again = enlarger.redo(made.provenance, drawing)
    assert again.image.tobytes() == made.image.tobytes()
    assert again.provenance == made.provenance
    assert made.provenance["request"]["size"] == 50
    by_default = enlarger.upscale(drawing, seed=1)
    assert by_default.provenance["request"]["size"] == 64
    assert enlarger.redo(by_default.provenance, drawing).image.tobytes() == by_default.image.tobytes()
    assert b"compositeWithTrainedAlgorithmicMedia" in made.png()


def test_what_cannot_be_is_refused(tiny, enlarger, tiny_model, drawing):
    for size in (32, 20, 129):
        with pytest.raises(RequestError, match=f"a longer side of 33 to .* pixels, not {size}"):
            enlarger.upscale(drawing, size=size)
    with pytest.raises(RequestError, match="megapixels"):
        enlarger.upscale(Image.new("RGB", (7000, 7000)))
    clip = tiny.networks(tiny_model)["clip"]
    alone = Model.of({"clip": clip}, tiny_model.parts.tokenizer, name="alone")
    with pytest.raises(Unsupported, match="'alone' has no upsampler"):
        alone.upscale(drawing)
