"""Kandinsky in diffusers' own classes: narrow, with random weights and with the switches of the real one."""

import itertools

import pytest
import torch
from diffusers import UNet2DConditionModel


@torch.no_grad()
def _spread(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights that keep the size of what passes through them, and nothing left at zero or one.

    Matrices are N(0, 1/fan_in), biases N(0, 0.1), scales of norms 1 + N(0, 0.1).
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            fan_in = parameter[0].numel()
            parameter.copy_(drawn * fan_in**-0.5)
        elif name.endswith("weight") or name == "clip_std":
            parameter.copy_((1 + 0.1 * drawn).abs())
        else:
            parameter.copy_(0.1 * drawn)
    return model.eval()


@pytest.fixture(scope="session")
def spread():
    """`_spread`, for all tests."""
    return _spread


CHANNELS = [32, 64, 96, 128]
TEXT_WIDTH = 28
"""Of the multilingual encoder; neither the width of embeddings nor of context tokens."""
CROSS = 24
EMBEDDING = {"2.1": CROSS, "2.2": 20}
"""Width of z_i. diffusers' classes of 2.1 take it for the width of context tokens too."""


def _unet(version: str, in_channels: int = 4) -> UNet2DConditionModel:
    own = {
        "2.2": {
            "encoder_hid_dim": EMBEDDING["2.2"],
            "encoder_hid_dim_type": "image_proj",
            "addition_embed_type": "image",
        },
        "2.1": {
            "encoder_hid_dim": TEXT_WIDTH,
            "encoder_hid_dim_type": "text_image_proj",
            "addition_embed_type": "text_image",
        },
    }
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=8,
        down_block_types=["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=[*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
        block_out_channels=CHANNELS,
        layers_per_block=3,
        attention_head_dim=16,
        cross_attention_dim=CROSS,
        resnet_time_scale_shift="scale_shift",
        **own[version],
    )


@pytest.fixture(scope="session")
def unets() -> dict[tuple[str, int], UNet2DConditionModel]:
    """U-Nets of both versions, by version and number of input channels."""
    made = {}
    for index, (version, channels) in enumerate(itertools.product(("2.1", "2.2"), (4, 9))):
        made[version, channels] = _spread(_unet(version, channels), index)
    return made
