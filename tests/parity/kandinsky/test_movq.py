"""Kandinsky's autoencoder against diffusers' `VQModel`: the same weights, the same latents and pictures."""

from typing import Any

import pytest
import torch
from diffusers import VQModel

from unclip.errors import ModelError
from unclip.formats.key_maps.movq import MOVQ, TABLE, read_config
from unclip.networks.movq import Movq

SMALL: dict[str, Any] = {
    "down_block_types": [*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
    "block_out_channels": [32, 64, 64, 96],
    "layers_per_block": 2,
    "latent_channels": 4,
    "num_vq_embeddings": 64,
    "vq_embed_dim": 4,
    "norm_type": "spatial",
}


def named(model: VQModel) -> dict[str, Any]:
    """The config as diffusers writes it."""
    return {"_class_name": "VQModel", **model.config}


@pytest.fixture(scope="module")
def theirs(spread) -> VQModel:
    return spread(VQModel(**SMALL), 3)


@pytest.fixture(scope="module")
def ours(theirs) -> Movq:
    network = Movq(read_config(named(theirs), "movq"))
    state = theirs.state_dict()
    made = TABLE.to_ours(network.state_dict(), list(state), state.__getitem__, "movq")
    network.load_state_dict(dict(made))
    return network.eval()


@torch.no_grad()
def test_latents_and_pictures(theirs, ours):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 64, 96, generator=generator) * 2 - 1
    expected = theirs.encode(pixels).latents
    assert expected.std() > 0.1
    torch.testing.assert_close(ours.encode(pixels), expected, atol=1e-5, rtol=0)
    latents = torch.randn(2, 4, 8, 12, generator=generator)
    expected = theirs.decode(latents, force_not_quantize=True).sample
    assert expected.std() > 0.1
    limit = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(ours.decode(latents), expected, atol=limit, rtol=0)
    # The control: looking up the nearest codes is something else.
    assert (theirs.decode(latents).sample - expected).abs().max() > 0.1


def test_gradients_agree_with_the_path_without_them(ours):
    """Sampling works in place, training may not."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    trained = ours.decode(latents)
    trained.mean().backward()
    assert latents.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(ours.decode(latents), trained)


def test_a_picture_that_does_not_fit(ours):
    with pytest.raises(ValueError, match="60x64 does not fit; both sides must be multiples of 8"):
        ours.encode(torch.zeros(1, 3, 60, 64))


def test_every_option_is_listed(theirs):
    assert {name for name in theirs.config if not name.startswith("_")} == MOVQ.options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_type": "group"}, "norm_type is 'group'"),
        ({"vq_embed_dim": 8}, "vq_embed_dim is 8, latent_channels is 4"),
        ({"norm_num_groups": 16}, "norm_num_groups is 16"),
        ({"up_block_types": ["UpDecoderBlock2D"] * 4}, "do not mirror"),
        ({"block_out_channels": [32, 64, 64, 72]}, "72, which is no multiple of 32"),
        ({"new_switch": 1}, "the option 'new_switch' of VQModel is not known"),
    ],
)
def test_another_architecture_is_refused(theirs, change, message):
    with pytest.raises(ModelError, match=message):
        read_config(named(theirs) | change, "movq")
