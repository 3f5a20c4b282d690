"""Perceptual distances, and drawings reduced and enlarged again."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from unclip.data.sample import BadSample
from unclip.data.shapes import Shapes
from unclip.diffusion.parametrization import ProcessConfig
from unclip.evaluate.evaluation import Evaluation
from unclip.evaluate.metrics import upsampling_quality
from unclip.evaluate.perceptual import perceptual_distance
from unclip.evaluate.upsampling import evenly_spaced, upsampling
from unclip.generate.model import Model
from unclip.images import from_uint8
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerCondition, UpsamplerConfig
from unclip.stages.sampling import sampling


class Bicubic(Upsampler):
    """An upsampler that always returns its enlarged condition."""

    def predict(
        self, net: nn.Module, x: torch.Tensor, label: torch.Tensor, condition: UpsamplerCondition
    ) -> torch.Tensor:
        return condition.low


@pytest.fixture(scope="module")
def make(model, networks) -> Callable[[type[Upsampler]], Model]:
    """Factory of the tiny model with an upsampler of a class, from 16 to 32 px."""

    def build(kind: type[Upsampler]) -> Model:
        torch.manual_seed(0)
        net = UnetConfig(in_channels=6, channels=32, multiples=(1,), blocks=1)
        process = ProcessConfig(parametrization="x0", schedule="flow")
        upsampler = kind(UpsamplerConfig(net=net, process=process, low_size=16, high_size=32))
        quick = sampling(upsampler_steps=2).over(model.defaults)
        return Model.of({**networks, "upsampler": upsampler}, model.parts.tokenizer, defaults=quick)

    return build


def test_distance_grows_with_the_difference(judge, config, model, cache):
    pictures = from_uint8(Evaluation(model, config(), judge=judge, cache=cache).asked[0].real[:3])
    torch.manual_seed(0)
    noise = torch.randn_like(pictures)
    away = [perceptual_distance(judge, pictures, (pictures + s * noise).clamp(-1, 1)) for s in (0, 0.05, 0.5)]
    assert away[0].tolist() == [0, 0, 0]
    assert (away[0] < away[1]).all()
    assert (away[1] < away[2]).all()
    swapped = perceptual_distance(judge, pictures.flip(0), pictures)
    torch.testing.assert_close(swapped[0], perceptual_distance(judge, pictures[:1], pictures[2:3])[0])


def test_every_pixel_counts_at_any_size(judge):
    white = torch.ones(1, 3, 19, 33)
    dotted = white.clone()
    dotted[..., -1, -1] = -1.0
    assert perceptual_distance(judge, white, dotted).item() > 0


def test_an_upsampler_that_does_what_bicubic_does_scores_the_same(make, judge, config, cache):
    evaluation = Evaluation(make(Bicubic), config(upsampled=4), judge=judge, cache=cache)
    found = upsampling_quality(evaluation)
    assert found is not None
    assert (found["count"], found["size"]) == (4, 32)
    assert found["upsampler"]["psnr"] == pytest.approx(found["bicubic"]["psnr"], abs=1.0)
    assert found["upsampler"]["perceptual"] == pytest.approx(found["bicubic"]["perceptual"], rel=0.3)
    assert found["bicubic"]["psnr"] > 15


def test_an_untrained_upsampler_is_worse(make, judge, config, cache):
    found = upsampling_quality(Evaluation(make(Upsampler), config(upsampled=3), judge=judge, cache=cache))
    assert found is not None
    assert found["upsampler"]["psnr"] < found["bicubic"]["psnr"]
    assert found["upsampler"]["perceptual"] > found["bicubic"]["perceptual"]


class Mixed(Shapes):
    """Shapes of which some are small and some are bad."""

    def picture(self, index: int, size: int | None) -> np.ndarray:
        if index % 3 == 1:
            raise BadSample(str(index), "damaged")
        return super().picture(index, 16 if index % 3 == 2 and size is None else size)


def test_small_and_bad_drawings_are_left_out():
    found = evenly_spaced(Mixed(count=9), 9, 64)
    assert found is not None
    expected = np.stack([Shapes(count=9).picture(row, 64) for row in (0, 3, 6)])
    assert np.array_equal(found.numpy(), expected)
    assert evenly_spaced(Mixed(count=9), 9, 512) is None


def test_what_cannot_be_measured_is_left_out(make, model, judge, config, cache):
    for one, upsampled in ((model, 4), (make(Upsampler), 0)):
        evaluation = Evaluation(one, config(upsampled=upsampled), judge=judge, cache=cache)
        assert upsampling_quality(evaluation) is None
    with pytest.raises(ValueError, match="the upsampler makes 32"):
        upsampling(make(Upsampler), judge, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
