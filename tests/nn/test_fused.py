"""Residual blocks and masks for a GPU: the same answers as the plain ones, to rounding; tried on the CPU."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unclip.nn.attention import KeyMask, PixelAttention
from unclip.nn.dot_product import ALIGNED, additive, attend
from unclip.nn.fused import FusedResBlock
from unclip.nn.resblock import ResBlock


@pytest.mark.parametrize("resample", [None, "down", "up"])
@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("channels", [8, 16])
@pytest.mark.parametrize("norm", ["group", "rms"])
@torch.inference_mode()
def test_a_fused_block_gives_the_blocks_answer(resample, scale_shift, channels, norm):
    torch.manual_seed(0)
    block = ResBlock(8, channels, 12, scale_shift_norm=scale_shift, resample=resample, norm=norm, groups=4)
    for parameter in block.parameters():
        parameter.normal_(std=0.3)
    fused = FusedResBlock(copy.deepcopy(block))
    x, embedding = torch.randn(2, 8, 8, 8), torch.randn(2, 12)
    given = x.clone()
    torch.testing.assert_close(fused(x, embedding), block(x, embedding), rtol=0, atol=2e-5)
    assert torch.equal(x, given)
    if isinstance(block.skip, nn.Conv2d):
        assert fused.conv2.bias is None


def test_an_additive_mask_hides_the_same_keys():
    torch.manual_seed(0)
    mask = torch.rand(2, 1, 5, 9) > 0.3
    mask[..., 0] = True
    made = additive(mask, torch.float32)
    assert made.shape == mask.shape
    assert all(stride % ALIGNED == 0 for stride in made.stride()[:-1])
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(attend(q, k, v, made), attend(q, k, v, mask), rtol=0, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(
            F.scaled_dot_product_attention(q, k, v, made), F.scaled_dot_product_attention(q, k, v, mask)
        )


@torch.inference_mode()
def test_a_mask_is_made_once_for_a_resolution():
    torch.manual_seed(0)
    attention = PixelAttention(8, 8, context_width=6, groups=4)
    attention.out.weight.normal_()
    x, context = torch.randn(2, 8, 4, 4), torch.randn(2, 5, 6)
    tokens = torch.tensor([[True] * 5, [True, False, False, True, False]])
    mask = KeyMask(tokens)
    assert torch.equal(attention(x, context, mask), attention(x, context, tokens))
    assert mask.beside(16, x.dtype) is mask.beside(16, x.dtype)
    assert mask.beside(4, x.dtype).shape == (2, 1, 1, 9)
