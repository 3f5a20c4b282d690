"""Packed layers: the same answers as the layers they are made of, to the rounding of their type."""

import pytest
import torch
from torch import nn

from unclip.nn.packed import (
    DoublingConv2d,
    PackedConv2d,
    PackedLinear,
    PackedPixelwise,
    PackedResBlock,
    can_pack,
)
from unclip.nn.resample import double
from unclip.nn.resblock import ResBlock

pytestmark = pytest.mark.skipif(
    not can_pack(), reason="this processor or build of torch has no bfloat16 kernels"
)


@pytest.fixture(autouse=True)
def inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def off(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual.float() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (1, 0)])
def test_convolution_in_float32_is_the_same(kernel, padding):
    layer, x = nn.Conv2d(6, 10, kernel, padding=padding), maps(2, 6, 8, 12)
    packed = PackedConv2d(layer, torch.float32)
    assert (packed(x) - layer(x)).abs().max() < 1e-5
    plus = maps(2, 10, 8, 12)
    assert (packed(x, plus=plus) - (layer(x) + plus)).abs().max() < 1e-5


def test_a_convolution_takes_inputs_of_any_shape_in_turn():
    layer = nn.Conv2d(64, 32, 3, padding=1)
    packed = PackedConv2d(layer, torch.float32)
    for shape in ((2, 64, 8, 8), (1, 64, 8, 8), (1, 64, 20, 12), (2, 64, 8, 8)):
        x = maps(*shape)
        assert (packed(x) - layer(x)).abs().max() < 1e-5


def test_a_pixelwise_convolution_is_a_linear_layer():
    layer, x = nn.Conv2d(6, 10, 1), maps(2, 6, 5, 8)
    made = PackedPixelwise(layer, torch.float32)(x)
    assert (made - layer(x)).abs().max() < 1e-5
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_a_doubled_map_is_convolved_in_parts():
    layer, x = nn.Conv2d(6, 10, 3, padding=1), maps(2, 6, 5, 8)
    made = DoublingConv2d(layer, torch.float32)(x)
    assert made.shape == (2, 10, 10, 16)
    assert (made - layer(double(x))).abs().max() < 1e-5
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_linear_in_float32_is_the_same():
    layer, x = nn.Linear(12, 20), torch.randn(2, 7, 12)
    assert (PackedLinear(layer, torch.float32)(x) - layer(x)).abs().max() < 1e-5


@pytest.mark.parametrize("resample", [None, "down", "up"])
@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize(("channels", "batch"), [((32, 32), 1), ((64, 32), 2)])
def test_block_rounds_no_more_than_a_plain_one_in_bfloat16(resample, scale_shift, channels, batch):
    block = ResBlock(*channels, 24, scale_shift_norm=scale_shift, resample=resample)
    for parameter in block.parameters():
        if not parameter.any():
            parameter.normal_(std=0.05)
    x, embedding = maps(batch, channels[0], 8, 8), torch.randn(batch, 24)
    expected = block(x, embedding)
    x, kept = x.bfloat16(), x.bfloat16()
    packed = PackedResBlock(block)(x, embedding)
    assert torch.equal(x, kept)  # what is done in place is not done to what was given
    plain = block.bfloat16()(x, embedding.bfloat16())
    assert packed.dtype == torch.bfloat16
    assert off(packed, expected) < 1.1 * off(plain, expected)
