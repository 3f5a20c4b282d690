"""Image spaces: what a latent codec asks of an autoencoder, and its cheap preview."""

import contextlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unclip.networks.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    Posterior,
    standardised,
    unstandardised,
)
from unclip.rng import Noise
from unclip.stages.codec import LatentCodec

CONFIG = AutoencoderConfig(channels=8, groups=4, multiples=(1, 1, 2), blocks=1, scale=0.5)


class Affine:
    """An autoencoder whose decoder is a linear map of channels, enlarged four times."""

    def __init__(self) -> None:
        self.weights = torch.linspace(-0.1, 0.2, 12).reshape(3, 4)

    def encode(self, pixels: Tensor) -> Posterior:
        small = F.avg_pool2d(pixels, 4)
        mean = torch.cat([small, small[:, :1]], dim=1)
        return Posterior(mean, torch.full_like(mean, -2.0))

    def decode(self, z: Tensor) -> Tensor:
        return F.interpolate(torch.einsum("rc,bchw->brhw", self.weights, z) + 0.1, scale_factor=4.0)


def codec(config: AutoencoderConfig = CONFIG) -> LatentCodec:
    return LatentCodec(config, lambda exact=False: contextlib.nullcontext(Affine()))


def test_a_preview_of_a_linear_decoder_is_the_picture_made_small():
    state = Noise([3]).normal(4, 6, 8).float()
    one = codec()
    assert torch.allclose(one.preview(state), F.avg_pool2d(one.decode(state), 4), atol=1e-4)


def test_latents_are_scaled_and_sampled():
    pixels = Noise([1]).normal(3, 16, 24).float().clamp(-1, 1)
    mean = Affine().encode(pixels).mean
    assert torch.allclose(codec().encode(pixels), 0.5 * mean)
    drawn = Noise([2]).normal(4, 4, 6).float()
    sampled = codec().encode(pixels, Noise([2]))
    assert torch.allclose(sampled, 0.5 * (mean + torch.exp(torch.tensor(-1.0)) * drawn), atol=1e-6)


def test_statistics_per_channel_are_taken_off_and_put_back():
    config = replace(CONFIG, mean=(0.1, -0.2, 0.3, 0.0), std=(1.0, 2.0, 0.5, 3.0))
    z = Noise([1]).normal(4, 3, 3).float()
    x = standardised(z, config)
    assert torch.allclose(x[0, 1], (z[0, 1] + 0.2) / 2 * 0.5, atol=1e-6)
    assert torch.allclose(unstandardised(x, config), z, atol=1e-6)
    with pytest.raises(ValueError, match="mean has 2 numbers, the latent has 4 channels"):
        replace(CONFIG, mean=(1.0, 2.0))


def test_sides_that_the_factor_does_not_divide_are_refused():
    with pytest.raises(ValueError, match="18x16 pixels are not a multiple of 4"):
        codec().encode(torch.zeros(1, 3, 16, 18))
    with pytest.raises(ValueError, match="a picture of 18x16 does not fit"):
        Autoencoder(CONFIG).encode(torch.zeros(1, 3, 16, 18))


def test_latents_computed_again_in_float32_have_the_noise_of_the_first_time(caplog):
    """Half precision may overflow; the sample was then the mean, and noise behind it began at another place."""
    exact = Affine()
    encode = exact.encode

    class Overflowing(Affine):
        def encode(self, pixels: Tensor) -> Posterior:
            found = encode(pixels)
            return Posterior(found.mean * float("nan"), found.log_variance)

    def borrow(exact_: bool = False):
        return contextlib.nullcontext(exact if exact_ else Overflowing())

    pixels = Noise([1]).normal(3, 16, 24).float().clamp(-1, 1)
    one, noise, other = LatentCodec(CONFIG, lambda exact=False: borrow(exact)), Noise([2]), Noise([2])
    assert torch.equal(one.encode(pixels, noise), codec().encode(pixels, other))
    assert "computing in float32" in caplog.text
    assert torch.equal(one.encode(pixels), codec().encode(pixels))
