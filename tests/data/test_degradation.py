"""Degraded small pictures: blur, seams, noise and BSR, each a function of its own seed."""

from dataclasses import replace

import pytest
import torch

from unclip.data import degradation
from unclip.data.degradation import (
    DegradationConfig,
    bsr,
    degrade,
    gaussian_blur,
    seams,
)
from unclip.images import to_uint8
from unclip.images.tensors import jpeg
from unclip.rng import Noise

CONFIG = DegradationConfig(blur_probability=0.5, noise_level=0.1)
BSR = replace(CONFIG, method="bsr", noise_level=0.0)
FACTOR = 4


def pictures(count: int = 4, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, 3, size, size, generator=generator) - 1


def edges(count: int = 1, size: int = 64) -> torch.Tensor:
    """White with a black square: as drawings are."""
    picture = torch.ones(count, 3, size, size)
    picture[:, :, size // 4 : size // 2, size // 4 : size // 2] = -1
    return picture


def test_the_small_picture_is_the_mean_of_areas_then_blurred():
    plain = replace(CONFIG, noise_level=0.0, blur_probability=0.0)
    low, level = degrade(pictures(), Noise(range(4)), FACTOR, plain)
    areas = pictures().unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
    torch.testing.assert_close(low, areas)
    assert not level.any()
    blurred, _ = degrade(pictures(), Noise(range(4)), FACTOR, replace(plain, blur_probability=1.0))
    torch.testing.assert_close(blurred, gaussian_blur(areas, 3, 0.6))


def test_about_half_are_blurred_and_noise_has_its_level():
    """Grey pictures show the noise alone, 200 of them its distribution."""
    low, level = degrade(torch.zeros(200, 3, 64, 64), Noise(range(200)), FACTOR, CONFIG)
    assert 0 <= level.min() < 0.01
    assert 0.09 < level.max() <= 0.1
    torch.testing.assert_close(low.std((1, 2, 3)), level, rtol=0.15, atol=1e-3)
    stripes = torch.ones(200, 3, 64, 64)
    stripes[..., ::8] = -1
    low, _ = degrade(stripes, Noise(range(200)), FACTOR, replace(CONFIG, noise_level=0.0))
    sharp = low.std((1, 2, 3)) > 0.24
    assert 0.4 < sharp.float().mean() < 0.6


def test_seams_are_planes_that_differ_from_square_to_square():
    added = seams(torch.zeros(200, 3, 40, 24), Noise(range(200)), 8)
    assert added.shape == (200, 3, 40, 24)
    assert added.mean().abs() < 0.02
    assert 0.95 < added.std() < 1.05
    bends = added.diff(n=2, dim=2).abs().amax((1, 3)) > 1e-4
    # A plane has no second difference: only the two across a seam, which is 8 pixels from the next, are not zero.
    for row in bends[:20]:
        first, second = sorted({place % 8 for place in row.nonzero()[:, 0].tolist()})
        assert second - first in (1, 7)
    assert len({tuple(row.tolist()) for row in bends}) == 8
    # Across a seam the step is larger than inside of a square.
    inside, across = bends[0].logical_not(), bends[0]
    steps = added[0].diff(dim=1).square().mean((0, 2))
    assert steps[1:][across].mean() > 2 * steps[1:][inside].mean()
    alone = seams(torch.zeros(1, 3, 40, 24), Noise([7]), 8)
    assert torch.equal(alone[0], added[7])


def test_seams_have_their_level():
    config = replace(CONFIG, seam_level=0.2, noise_level=0.0, blur_probability=0.0)
    low, _ = degrade(torch.zeros(400, 3, 64, 64), Noise(range(400)), FACTOR, config)
    # The root mean square of a level uniform in [0, 0.2].
    assert low.square().mean().sqrt().item() == pytest.approx(0.2 / 3**0.5, rel=0.1)
    with pytest.raises(ValueError, match="seam_patch is 1"):
        replace(CONFIG, seam_patch=1)


def test_the_blur_is_a_normalised_gaussian():
    impulse = torch.zeros(1, 2, 7, 7)
    impulse[:, :, 3, 3] = 1
    blurred = gaussian_blur(impulse, 3, 0.6)
    assert blurred.sum().item() == pytest.approx(2, rel=1e-6)
    ratio = blurred[0, 0, 3, 4] / blurred[0, 0, 3, 3]
    assert ratio.item() == pytest.approx(torch.exp(torch.tensor(-0.5 / 0.36)).item(), rel=1e-5)
    assert blurred[0, 0, 3, 5] == 0


def test_an_anisotropic_gaussian_lies_along_its_angle():
    kernel = degradation._gaussian(10, (3.0, 1.0), torch.pi / 4).double()
    offsets = torch.arange(-10.0, 11.0).double()
    down, right = offsets[:, None], offsets[None]
    assert kernel.sum().item() == pytest.approx(1.0)
    # The covariance of N(0, R diag(9, 1) R^T), turned by 45 degrees, but for the kernel's cut tails.
    for values, expected in ((down * down, 5.0), (right * right, 5.0), (down * right, 4.0)):
        assert (kernel * values).sum().item() == pytest.approx(expected, rel=0.02)


def test_bsr_differs_from_seed_to_seed_and_stays_a_picture():
    low, level = degrade(edges(12), Noise(range(12)), FACTOR, BSR)
    assert low.shape == (12, 3, 16, 16)
    assert low.abs().max() <= 1
    assert not level.any()
    differences = (low[:, None] - low[None]).abs().amax((2, 3, 4))
    assert (differences + torch.eye(12) > 0.01).all()
    # A quarter of it leaves what is seen: dark inside, light outside.
    low, _ = degrade(edges(12), Noise(range(12)), FACTOR, replace(BSR, bsr_strength=0.25))
    assert (low[:, :, 5:7, 5:7].mean((1, 2, 3)) < low[:, :, 10:, 10:].mean((1, 2, 3)) - 0.3).all()


def test_the_order_is_random_and_every_degradation_does_something():
    orders = {tuple(Noise([seed]).fork("order").uniform(6)[0].argsort().tolist()) for seed in range(40)}
    assert len(orders) > 30
    step, picture = degradation._Step((16, 16), 4, Noise([3]), 1.0), pictures(1)[0]
    for act in degradation._DEGRADATIONS:
        changed = 0
        for seed in range(1, 31):
            made = act(picture, step._replace(noise=Noise([seed])))
            changed += made.shape != picture.shape or not torch.equal(made, picture)
        # Shot noise comes a quarter of the time, JPEG three quarters, the others always.
        low, high = {"_shot_noise": (1, 18), "_jpeg": (15, 29)}.get(act.__name__, (30, 30))
        assert low <= changed <= high, act.__name__


@pytest.mark.parametrize("config", [CONFIG, BSR], ids=["blur", "bsr"])
def test_autocast_changes_nothing(config):
    expected, _ = degrade(edges(4), Noise(range(4)), FACTOR, config)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = degrade(edges(4), Noise(range(4)), FACTOR, config)
    assert torch.equal(found, expected)


def test_strength_scales_the_harm():
    clean = replace(CONFIG, noise_level=0.0, blur_probability=0.0)
    reference, _ = degrade(edges(24), Noise(range(24)), FACTOR, clean)
    harm = [
        (degrade(edges(24), Noise(range(24)), FACTOR, replace(BSR, bsr_strength=strength))[0] - reference)
        .square().mean().item()
        for strength in (0.1, 0.5, 1.0)
    ]  # fmt: skip
    assert harm[0] < harm[1] < harm[2]


def test_jpeg_loses_more_at_lower_quality():
    pixels = to_uint8(pictures(1, 32)[0])
    losses = [(jpeg(pixels, quality).int() - pixels.int()).abs().float().mean() for quality in (95, 60, 30)]
    assert 0 < losses[0] < losses[1] < losses[2]
    flat = torch.full((3, 16, 16), 128, dtype=torch.uint8)
    assert torch.equal(jpeg(flat, 95), flat)


def test_bsr_makes_pictures_of_any_shape_smaller():
    assert bsr(pictures(1)[0, :, :24], 4, Noise([1])).shape == (3, 6, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"blur_kernel": 4}, "odd number"), ({"bsr_strength": 2.0}, "bsr_strength is 2.0")],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)
