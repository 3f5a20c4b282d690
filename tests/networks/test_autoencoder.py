"""The autoencoder on folded pixels."""

import pytest
import torch

from unclip.formats.export import autoencoder_config
from unclip.networks.autoencoder import Autoencoder, AutoencoderConfig
from unclip.nn.resample import depth_to_space, space_to_depth

SHAPE = {"channels": 16, "multiples": (1, 2), "blocks": 1, "groups": 8, "middle_attention": False}


@torch.no_grad()
def test_a_patch_is_a_plain_autoencoder_between_folding_and_unfolding():
    folded = Autoencoder(AutoencoderConfig(patch=4, **SHAPE))
    plain = Autoencoder(AutoencoderConfig(in_channels=48, **SHAPE))
    plain.load_state_dict(folded.state_dict())
    assert folded.config.factor == 8
    x = torch.randn(2, 3, 32, 24)
    z = folded.encode(x).mean
    assert z.shape == (2, 4, 4, 3)
    maps = plain.encoder(space_to_depth(x, 4))
    torch.testing.assert_close(z, plain.quant(maps).chunk(2, dim=1)[0])
    found = plain.decoder(plain.post_quant(z))
    torch.testing.assert_close(folded.decode(z), depth_to_space(found, 4))


def test_a_picture_that_does_not_fold_is_named():
    network = Autoencoder(AutoencoderConfig(patch=4, **SHAPE))
    with pytest.raises(ValueError, match="20x32 does not fit: both sides must be multiples of 8"):
        network.encode(torch.zeros(1, 3, 32, 20))
    with pytest.raises(ValueError, match="patch is 0"):
        AutoencoderConfig(patch=0)


def test_folded_pixels_are_no_public_format():
    with pytest.raises(ValueError, match=r"4 x 4 pixels.*AutoencoderKL cannot"):
        autoencoder_config(AutoencoderConfig(patch=4, **SHAPE))
