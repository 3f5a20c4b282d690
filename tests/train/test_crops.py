"""Training pairs of upsamplers: crops at one place in both sizes, each a function of its own seed."""

from dataclasses import replace

import pytest
import torch

from unclip.data.degradation import Crops, DegradationConfig, choose_crops, degrade, reduce
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import UpsamplerCondition, UpsamplerConfig, resize_up
from unclip.rng import Noise
from unclip.train.tasks.upsampler import CropBatch, UpsamplerTraining, training_pair

CONFIG = UpsamplerTraining(
    recipe="test",
    model=UpsamplerConfig(
        net=UnetConfig(
            in_channels=6, channels=8, multiples=(1, 1), blocks=1, norm="rms", patch=2, resample="conv"
        ),
        process=ProcessConfig(parametrization="x0"),
        low_size=16,
        high_size=64,
        residual=True,
    ),
    degradation=DegradationConfig(blur_probability=0.5, noise_level=0.1),
)
BSR = replace(CONFIG, degradation=DegradationConfig(method="bsr"))


def pictures(count: int = 4, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, 3, size, size, generator=generator) - 1


def windows_of(picture: torch.Tensor, crops: Crops) -> torch.Tensor:
    places = zip(picture, crops.corner.tolist())
    return torch.stack([one[:, y : y + crops.side, x : x + crops.side] for one, (y, x) in places])


def pair(
    picture: torch.Tensor, seeds: list[int], config: UpsamplerTraining
) -> tuple[torch.Tensor, UpsamplerCondition]:
    crops = choose_crops(Noise(seeds), picture.shape[-1], size=config.crop_size, factor=4)
    windows = windows_of(picture, crops)
    bsr = config.degradation.method == "bsr"
    small = reduce(windows, Noise(seeds), 4, config.degradation) if bsr else None
    return training_pair(CropBatch(windows, crops, small), Noise(seeds), config)


def test_a_crop_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a crop of 19 pixels"):
        replace(CONFIG, crop_fraction=0.3)


@pytest.mark.parametrize("config", [CONFIG, BSR], ids=["blur", "bsr"])
def test_crops_are_the_same_place_of_both_and_lie_on_the_small_grid(config):
    size = 320
    picture, seeds = pictures(6, size), list(range(5, 11))
    crops = choose_crops(Noise(seeds), size, size=config.crop_size, factor=4)
    assert crops.side == 16 + 2 * 8 * 4 < size
    assert (crops.corner % 4 == 0).all()
    high, condition = pair(picture, seeds, config)
    low, level = degrade(windows_of(picture, crops), Noise(seeds), 4, config.degradation)
    assert high.shape == condition.low.shape == (6, 3, 16, 16)
    assert torch.equal(condition.noise_level, level)
    places = crops.corner + crops.offset
    for index, (top, left) in enumerate(places.tolist()):
        assert torch.equal(high[index], picture[index, :, top : top + 16, left : left + 16])
        down, right = crops.offset[index].tolist()
        assert torch.equal(
            condition.low[index], resize_up(low, 4)[index, :, down : down + 16, right : right + 16]
        )
    assert len({tuple(place) for place in places.tolist()}) == 6


def test_what_lies_around_a_crop_is_seen():
    """A window's small copy is the whole picture's, as far as the blur and the enlargement reach."""
    picture, seeds = pictures(3, 320), [1, 2, 3]
    config = replace(CONFIG, degradation=DegradationConfig())
    crops = choose_crops(Noise(seeds), 320, size=config.crop_size, factor=4)
    _, condition = pair(picture, seeds, config)
    whole = resize_up(degrade(picture, Noise(seeds), 4, config.degradation)[0], 4)
    for index, (top, left) in enumerate((crops.corner + crops.offset).tolist()):
        torch.testing.assert_close(condition.low[index], whole[index, :, top : top + 16, left : left + 16])


@pytest.mark.parametrize("config", [CONFIG, BSR], ids=["blur", "bsr"])
def test_a_pair_depends_on_its_own_seed_only(config):
    picture = pictures()
    high, condition = pair(picture, [5, 6, 7, 8], config)
    alone, alone_condition = pair(picture[2:3], [7], config)
    assert torch.equal(alone, high[2:3])
    torch.testing.assert_close(alone_condition.low, condition.low[2:3])
    again, again_condition = pair(picture, [5, 6, 7, 8], config)
    assert torch.equal(again, high)
    assert torch.equal(again_condition.low, condition.low)
