"""The upsampler: what the net is given, and that it learns to sharpen."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unclip import config as configs
from unclip.diffusion.parametrization import Preconditioned, ProcessConfig
from unclip.diffusion.samplers import ddim
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import (
    Upsampler,
    UpsamplerCondition,
    UpsamplerConfig,
    resize_up,
)
from unclip.rng import Noise

NET = UnetConfig(in_channels=6, channels=8, multiples=(1, 1), blocks=1, norm="rms", patch=2, resample="conv")
CONFIG = UpsamplerConfig(
    net=NET,
    process=ProcessConfig(parametrization="x0"),
    low_size=16,
    high_size=64,
    residual=True,
)


def pictures(count: int = 4, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, 3, size, size, generator=generator) - 1


def test_a_config_survives_json():
    assert configs.from_dict(UpsamplerConfig, json.loads(json.dumps(configs.to_dict(CONFIG)))) == CONFIG


def test_resizing_up_keeps_a_flat_picture_and_a_ramp():
    assert torch.allclose(resize_up(torch.full((1, 3, 4, 4), 0.3), 4), torch.tensor(0.3))
    ramp = torch.linspace(-1, 1, 16).expand(1, 1, 16, 16)
    steps = resize_up(ramp, 4).diff(dim=-1)[..., 12:-12]
    torch.testing.assert_close(steps, torch.full_like(steps, 2 / 15 / 4), atol=1e-5, rtol=0)


def test_a_new_residual_upsampler_predicts_the_resized_picture():
    upsampler, low = Upsampler(CONFIG), pictures(2, 16)
    condition = upsampler.condition(low)
    assert condition.low.shape == (2, 3, 64, 64)
    assert torch.equal(upsampler(torch.randn(2, 3, 64, 64), torch.zeros(2), condition), resize_up(low, 4))
    plain = Upsampler(replace(CONFIG, residual=False))
    assert not plain(torch.randn(2, 3, 64, 64), torch.zeros(2), condition).any()


def randomised(config: UpsamplerConfig) -> Upsampler:
    upsampler = Upsampler(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in upsampler.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return upsampler


def test_the_noise_level_is_told_where_the_net_takes_a_vector():
    x, label, low = torch.randn(2, 3, 64, 64), torch.zeros(2), pictures(2, 16)
    told = randomised(replace(CONFIG, net=replace(NET, vector_width=32)))
    assert not torch.allclose(told(x, label, told.condition(low)), told(x, label, told.condition(low, 0.05)))
    untold = randomised(CONFIG)
    assert torch.equal(untold(x, label, untold.condition(low)), untold(x, label, untold.condition(low, 0.05)))


def test_every_parameter_is_reached():
    upsampler = randomised(replace(CONFIG, net=replace(NET, vector_width=32)))
    condition = upsampler.condition(pictures(4, 16), noise_level=0.05)
    upsampler(pictures(), torch.rand(4), condition).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in upsampler.parameters())


def test_a_condition_of_another_size_is_refused():
    condition = UpsamplerCondition(pictures(1, 16), torch.zeros(1))
    with pytest.raises(ValueError, match=r"condition is \(16, 16\) and the picture \(64, 64\); resize"):
        Upsampler(CONFIG)(pictures(1), torch.zeros(1), condition)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low_size": 48}, "no multiple of low_size 48"),
        ({"net": replace(NET, out_channels=6)}, "not 6 and 6"),
        ({"process": ProcessConfig(parametrization="eps")}, "residual needs"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def discs(seeds: range) -> torch.Tensor:
    """White pictures with a coloured disc of random place and size: edges to be sharpened."""
    noise = Noise(seeds)
    uniform = noise.uniform(6).float()
    rows = torch.arange(64.0)
    squared = (rows[None, :, None] - 20 - 24 * uniform[:, 0, None, None]) ** 2
    squared = squared + (rows[None, None, :] - 20 - 24 * uniform[:, 1, None, None]) ** 2
    inside = squared.sqrt() < 6 + 12 * uniform[:, 2, None, None]
    return torch.where(inside[:, None], 2 * uniform[:, 3:, None, None] - 1, torch.ones(()))


def test_it_learns_to_sharpen_and_samples_in_four_steps():
    """120 steps on discs; then four sampling steps beat bicubic enlargement on discs that it has not seen."""
    torch.manual_seed(0)
    config = replace(CONFIG, net=replace(NET, channels=16))
    upsampler, process = Upsampler(config), config.process.build()
    denoiser = Preconditioned(upsampler, process)
    assert process.table is not None
    optimizer = torch.optim.AdamW(upsampler.parameters(), lr=3e-3)
    for step in range(120):
        seeds = range(8 * step, 8 * step + 8)
        noise = Noise(seeds)
        whole = discs(seeds)
        low = resize_up(F.avg_pool2d(whole, 4), 4)
        offsets = ((9 * noise.fork("crop").uniform(2)).long() * 4).tolist()
        high, low = (
            torch.stack([one[:, y : y + 32, x : x + 32] for one, (y, x) in zip(all, offsets)])
            for all in (whole, low)
        )
        condition = UpsamplerCondition(low, torch.zeros(len(high)))
        sigma = process.table.sigma_of(noise.fork("time").uniform() * 999).float()
        x = high + sigma[:, None, None, None] * noise.fork("eps").normal(*high.shape[1:])
        loss = F.mse_loss(denoiser.raw(x, sigma, condition), high)
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (120 - step) / 60)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(upsampler.parameters(), 1.0)
        optimizer.step()
    truth = discs(range(10_000, 10_008))
    condition = upsampler.condition(F.avg_pool2d(truth, 4))
    sigmas = process.grid(4)
    x = Noise(range(8)).normal(3, 64, 64) * (1 + sigmas[0] ** 2).sqrt().float()
    with torch.no_grad():
        for last in ddim(denoiser.bind(condition), x, sigmas):
            x = last.x
    assert F.mse_loss(x, truth) < 0.85 * F.mse_loss(condition.low, truth)
