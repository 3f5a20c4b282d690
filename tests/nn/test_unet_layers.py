"""The layers that U-Nets are made of."""

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from unclip.nn.attention import PixelAttention
from unclip.nn.dropout import seed_dropout
from unclip.nn.norm import GroupNorm, PixelRmsNorm, normalization
from unclip.nn.resample import Downsample, Upsample, depth_to_space, double, halve, space_to_depth
from unclip.nn.resblock import ResBlock, zeroed
from unclip.rng import Noise


def randomise(module: nn.Module) -> nn.Module:
    """Away from the start, where some layers are zero on purpose."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


def test_pixel_rms_norm_is_the_rms_norm_of_each_pixel():
    x = torch.randn(2, 6, 3, 5)
    norm = randomise(PixelRmsNorm(6))
    by_pixel = F.rms_norm(rearrange(x, "b c h w -> b h w c"), (6,), norm.weight, norm.eps)
    torch.testing.assert_close(norm(x), rearrange(by_pixel, "b h w c -> b c h w"))


def test_pixel_rms_norm_of_large_half_precision_maps_does_not_overflow():
    x = torch.full((1, 64, 2, 2), 300.0, dtype=torch.float16)
    assert torch.allclose(PixelRmsNorm(64)(x), torch.ones_like(x), atol=1e-3)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_group_norm_keeps_half_precision(weights):
    norm = GroupNorm(2, 8).to(weights)
    x = torch.randn(2, 8, 4, 4)
    y = norm(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), F.group_norm(x, 2), atol=0.05, rtol=0.05)


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="20 channels do not split into 8"):
        normalization("group", 20, 8)


def test_halving_takes_means_and_doubling_repeats():
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert halve(x).item() == 1.5
    assert torch.equal(halve(double(x)), x)
    assert Downsample(3)(torch.zeros(1, 3, 8, 6)).shape == (1, 3, 4, 3)
    assert Upsample(3)(torch.zeros(1, 3, 4, 3)).shape == (1, 3, 8, 6)


def test_space_to_depth_keeps_blocks_together_and_inverts():
    x = torch.randn(2, 3, 8, 12)
    folded = space_to_depth(x, 4)
    assert torch.equal(folded, rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=4, q=4))
    assert torch.equal(depth_to_space(folded, 4), x)


@pytest.mark.parametrize("resample", [None, "down", "up"])
def test_a_new_resblock_passes_its_input_through(resample):
    x = torch.randn(2, 8, 4, 4)
    expected = {None: x, "down": halve(x), "up": double(x)}[resample]
    assert torch.equal(ResBlock(8, 8, 16, resample=resample, groups=2)(x, torch.randn(2, 16)), expected)


@pytest.mark.parametrize("scale_shift", [True, False])
def test_the_embedding_modulates_the_second_norm(scale_shift):
    block = randomise(ResBlock(8, 12, 16, scale_shift_norm=scale_shift, groups=4))
    assert isinstance(block, ResBlock)
    x, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    h = block.conv1(F.silu(block.norm1(x)))
    modulation = block.embedding(embedding)[:, :, None, None]
    if scale_shift:
        h = block.norm2(h) * (1 + modulation[:, :12]) + modulation[:, 12:]
    else:
        h = block.norm2(h + modulation)
    torch.testing.assert_close(block(x, embedding), block.skip(x) + block.conv2(F.silu(h)))


def test_dropout_acts_in_training_only():
    block = randomise(ResBlock(8, 8, 16, dropout=0.5, groups=2))
    x, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    seed_dropout(block, Noise([1, 2]))
    dropped = block(x, embedding)
    assert torch.equal(dropped, block(x, embedding))
    seed_dropout(block, Noise([3, 4]))
    assert not torch.equal(dropped, block(x, embedding))
    block.eval()
    assert not torch.equal(dropped, block(x, embedding))
    assert torch.equal(block(x, embedding), block(x, embedding))


def attention(context_width: int | None = None) -> PixelAttention:
    layer = PixelAttention(8, 4, context_width, groups=2)
    randomise(layer)
    return layer


def test_attention_agrees_with_the_formula():
    layer, x, context = attention(5), torch.randn(2, 8, 2, 3), torch.randn(2, 4, 5)
    assert layer.context_kv is not None
    pixels = layer.norm(x).flatten(2).mT
    q, k, v = layer.qkv(pixels).chunk(3, dim=-1)
    extra_k, extra_v = layer.context_kv(context).chunk(2, dim=-1)
    k, v = torch.cat([k, extra_k], dim=1), torch.cat([v, extra_v], dim=1)
    heads = [
        torch.softmax(q[..., part] @ k[..., part].mT / 2, dim=-1) @ v[..., part]
        for part in (slice(0, 4), slice(4, 8))
    ]
    expected = x + layer.out(torch.cat(heads, dim=-1)).mT.reshape(x.shape)
    torch.testing.assert_close(layer(x, context), expected)


def test_masked_tokens_are_as_if_absent():
    layer, x, context = attention(5), torch.randn(2, 8, 2, 3), torch.randn(2, 4, 5)
    mask = torch.tensor([[True, True, False, False]]).expand(2, 4)
    torch.testing.assert_close(layer(x, context, mask), layer(x, context[:, :2]))
    assert not torch.allclose(layer(x, context), layer(x, context[:, :2]))


def test_attention_without_context_refuses_tokens():
    layer, x = attention(), torch.randn(2, 8, 2, 3)
    assert layer(x).shape == x.shape
    with pytest.raises(ValueError, match="context_width"):
        layer(x, torch.randn(2, 4, 5))


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="10 channels do not split into heads of 4"):
        PixelAttention(10, 4)


def test_zeroed_layers_answer_zero():
    assert not zeroed(nn.Linear(3, 4))(torch.randn(2, 3)).any()
