"""The U-Net against diffusers' with the switches of the public weights: the same weights, the same predictions.

Karlo's decoder is a `UNet2DConditionModel` whose attention has added keys and values, Karlo's upsamplers are
`UNet2DModel`s without attention (https://github.com/kakaobrain/karlo). All is float32 and small.
"""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor

from unclip.formats.key_maps.unet import TABLE
from unclip.networks.unet import Unet, UnetConfig

LEVELS: dict[str, Any] = {"multiples": (1, 2, 3, 4), "channels": 16, "groups": 8}
CHANNELS = (16, 32, 48, 64)


def karlo_decoder(**changes: Any) -> UNet2DConditionModel:
    """Karlo's decoder config, narrow; heads are 16 channels wide, and no level has 16 of them."""
    arguments: dict[str, Any] = {
        "sample_size": 32,
        "in_channels": 3,
        "out_channels": 6,
        "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
        "block_out_channels": CHANNELS,
        "layers_per_block": 2,
        "attention_head_dim": 16,
        "cross_attention_dim": 24,
        "class_embed_type": "identity",
        "resnet_time_scale_shift": "scale_shift",
        "only_cross_attention": False,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "norm_num_groups": 8,
        "norm_eps": 1e-5,
    }
    return UNet2DConditionModel(**(arguments | changes))


def karlo_upsampler(**changes: Any) -> UNet2DModel:
    """Karlo's upsampler config, narrow."""
    arguments: dict[str, Any] = {
        "sample_size": None,
        "in_channels": 6,
        "out_channels": 3,
        "down_block_types": ["ResnetDownsampleBlock2D"] * 4,
        "up_block_types": ["ResnetUpsampleBlock2D"] * 4,
        "block_out_channels": CHANNELS,
        "layers_per_block": 2,
        "add_attention": False,
        "resnet_time_scale_shift": "default",
        "norm_num_groups": 8,
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
    }
    return UNet2DModel(**(arguments | changes))


def ours(theirs: torch.nn.Module, config: UnetConfig) -> Unet:
    """Our net with their weights; every name has to fit."""
    net, state = Unet(config), theirs.state_dict()
    net.load_state_dict(dict(TABLE.to_ours(net.state_dict(), state, state.__getitem__, "diffusers")))
    return net.eval()


DECODER = UnetConfig(
    **LEVELS,
    out_channels=6,
    blocks=2,
    attention_levels=(1, 2, 3),
    head_channels=16,
    context_width=24,
    vector_width=64,
)
UPSAMPLER = UnetConfig(**LEVELS, in_channels=6, blocks=2, scale_shift_norm=False)


@torch.no_grad()
def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """diffusers starts its norms and biases at the identity: move all of them, so that none could be left out."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def decoder_inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 5:] = False
    return {
        "x": torch.randn(2, 3, 32, 32, generator=generator),
        "label": torch.tensor([999.0, 41.0]),
        "vector": torch.randn(2, 64, generator=generator),
        "context": torch.randn(2, 7, 24, generator=generator),
        "context_mask": mask,
    }


@torch.no_grad()
def test_karlos_decoder(decoder_inputs):
    theirs = randomised(karlo_decoder())
    inputs = decoder_inputs
    expected = theirs(
        inputs["x"],
        inputs["label"],
        inputs["context"],
        class_labels=inputs["vector"],
        attention_mask=inputs["context_mask"],
    ).sample
    net = ours(theirs, DECODER)
    actual = net(**inputs)
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, atol=1e-5 * scale, rtol=0)
    # The control: the mask is part of what was compared.
    assert (net(**inputs | {"context_mask": None}) - expected).abs().max() > 1e-3 * scale


@torch.no_grad()
def test_karlos_upsampler():
    theirs = randomised(karlo_upsampler())
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 6, 32, 32, generator=generator)
    label = torch.tensor([832.0, 0.0])
    expected = theirs(x, label).sample
    actual = ours(theirs, UPSAMPLER)(x, label)
    torch.testing.assert_close(actual, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("switch", "theirs"),
    [("scale_shift_norm", {"resnet_time_scale_shift": "scale_shift"}), ("blocks", {"layers_per_block": 1})],
)
def test_the_upsamplers_other_switches(switch, theirs):
    reference = randomised(karlo_upsampler(**theirs))
    changed = {"scale_shift_norm": True} if switch == "scale_shift_norm" else {"blocks": 1}
    net = ours(
        reference,
        UnetConfig(**LEVELS, **{"in_channels": 6, "blocks": 2, "scale_shift_norm": False} | changed),
    )
    x, label = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(2)), torch.tensor([500.0])
    expected = reference(x, label).sample
    torch.testing.assert_close(net(x, label), expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


@torch.no_grad()
def test_convolutions_between_levels():
    """ADM's other way to change size, in diffusers the plain blocks."""
    theirs = randomised(
        karlo_upsampler(down_block_types=["DownBlock2D"] * 4, up_block_types=["UpBlock2D"] * 4)
    )
    net = ours(theirs, UnetConfig(**LEVELS, in_channels=6, blocks=2, scale_shift_norm=False, resample="conv"))
    x, label = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(2)), torch.tensor([500.0])
    expected = theirs(x, label).sample
    torch.testing.assert_close(net(x, label), expected, atol=1e-5 * expected.abs().max().item(), rtol=0)
