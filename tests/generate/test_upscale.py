"""Enlarging pictures of any shape: sizes, tiles, recipes, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from unclip.generate.system import System
from unclip.generate.upscale import plan, upscale
from unclip.networks.tiling import reach
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerConfig


@pytest.fixture(scope="module")
def enlarger(tiny_system) -> System:
    """Two upsamplers and nothing else: by 2, then by 2."""
    import torch

    torch.manual_seed(0)
    net = UnetConfig(in_channels=6, channels=8, multiples=(1, 2), blocks=1, norm="rms")
    process = tiny_system.upsamplers[0].config.process
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
    return System.of(parts, tiny_system.tokenizer, name="enlarger", defaults=tiny_system.defaults)


def test_any_shape_is_enlarged(enlarger, drawing):
    picture = drawing.crop((0, 0, 31, 17))
    for size, expected in ((None, (62, 34)), (50, (50, 27)), (62, (62, 34)), (124, (124, 68))):
        made = enlarger.upscale(picture, size=size, seed=1)
        assert made.image.size == expected
        assert made.recipe["size"] == list(expected)


def test_the_upsampler_that_fits_begins(enlarger):
    first, second = enlarger.upsamplers
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
        found, target = plan(enlarger, longer, longer // 2, size)
        assert found == expected
        assert max(target) == (size or 2 * longer)


def test_each_upsampler_has_its_own_steps(enlarger, tiny_system, drawing):
    seen, settings = [], enlarger.defaults.with_given(upsampler_steps=2, second_upsampler_steps=3)
    small = drawing.resize((16, 16))
    made = upscale(enlarger, small, settings=settings, size=64, seed=1, callback=seen.append)
    assert [event.total for event in seen] == [2, 2, 3, 3, 3]
    assert seen[-1].fraction == 1.0
    assert (made.recipe["second_upsampler_steps"], made.recipe["second_upsampler_sampler"]) == (3, "euler")
    assert "second_upsampler_steps" not in tiny_system.upscale(small, seed=1).recipe


def test_the_second_upsampler_draws_on_request_only(enlarger, tiny_system):
    parts = {name: getattr(tiny_system, name) for name in ("clip", "prior", "decoder")}
    parts |= {"upsampler": tiny_system.upsamplers[0], "upsampler_64": enlarger.upsamplers[1]}
    system = System.of(parts, tiny_system.tokenizer, name="whole", defaults=tiny_system.defaults)
    assert system.sizes == [16, 32, 64]
    small, large = (system.generate("a red apple", seed=1, size=size)[0] for size in (None, 64))
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


def test_tiles_are_not_seen(enlarger):
    ramp = Image.linear_gradient("L").resize((160, 12)).convert("RGB")
    assert 16 + 2 * reach(enlarger.upsamplers[0].config.net) < 2 * 160
    settings = enlarger.defaults
    whole, tiled = (
        np.asarray(upscale(enlarger, ramp, settings=settings, seed=1, tile=tile).image, int)
        for tile in (512, 16)
    )
    assert np.abs(whole - tiled).max() <= 1


@pytest.mark.parametrize("width", [160, 480])
def test_no_piece_is_larger_than_a_tile_and_what_it_depends_on(enlarger, width):
    """Memory is that of one piece, however large the picture."""
    net, seen = enlarger.upsamplers[1].net, []
    hook = net.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[-2:]))
    ramp = Image.linear_gradient("L").resize((width, 12)).convert("RGB")
    settings = enlarger.defaults.with_given(second_upsampler_steps=1)
    upscale(enlarger, ramp, settings=settings, seed=1, tile=16)
    hook.remove()
    assert len(seen) == 2 * 2 * width // 16
    divisor = net.config.divisor
    assert max(map(max, seen)) <= 16 + 2 * (reach(net.config) + divisor)


def test_a_recipe_makes_it_again(enlarger, drawing):
    made = enlarger.upscale(drawing, size=50, seed=1, upsampler_steps=1)
    again = enlarger.redo(made.recipe, drawing)
    assert again.image.tobytes() == made.image.tobytes()
    assert again.recipe == made.recipe
    assert b"compositeWithTrainedAlgorithmicMedia" in made.png()


def test_what_cannot_be_is_refused(enlarger, tiny_system, drawing):
    for size in (32, 20, 129):
        with pytest.raises(ValueError, match=f"33 to .* by 'enlarger', not {size}"):
            enlarger.upscale(drawing, size=size)
    with pytest.raises(ValueError, match="megapixels"):
        enlarger.upscale(Image.new("RGB", (7000, 7000)))
    alone = System.of({"clip": tiny_system.clip}, tiny_system.tokenizer, name="alone")
    with pytest.raises(ValueError, match="'alone' has no upsampler"):
        alone.upscale(drawing)
