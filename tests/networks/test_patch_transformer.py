"""The patch transformer: its patches, its attention, its conditions, its start."""

import math
from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch import nn

from unclip.networks.patch_transformer import (
    HeadNorm,
    ModulatedAttention,
    PatchTransformer,
    PatchTransformerConfig,
)

CONFIG = PatchTransformerConfig(
    size=8, in_channels=3, out_channels=6, patch=4, width=16, layers=2, head_channels=8, context_width=5
)


def build(config: PatchTransformerConfig = CONFIG, start: bool = False) -> PatchTransformer:
    """A net away from its start, where gates and output are zero."""
    torch.manual_seed(0)
    net = PatchTransformer(config)
    if not start:
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape))
    return net


def arguments(batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, generator=generator)

    return draw(3, 8, 8), torch.linspace(0.1, 0.9, batch), draw(16), draw(3, 5)


def test_shape_and_type():
    prediction = build()(*arguments())
    assert prediction.shape == (2, 6, 8, 8)
    assert prediction.dtype == torch.float32


def test_a_new_net_predicts_zero_and_its_blocks_do_nothing():
    net = build(start=True)
    assert not net(*arguments()).any()
    tokens = torch.randn(2, 4, 16)
    modulation = net.modulation(torch.randn(2, 16)).reshape(2, 6, 16)
    assert torch.equal(net.blocks[0](tokens, modulation, torch.randn(2, 3, 5)), tokens)


def test_patches_are_put_back_where_they_came_from():
    """Without attention, what is drawn in a patch depends on that patch and on no other."""
    net = build(start=True)
    torch.manual_seed(1)
    nn.init.normal_(net.out.weight)
    x, *conditions = arguments(1)
    x.requires_grad_()
    net(x, *conditions)[0, 4, 5, 2].backward()
    assert x.grad is not None
    touched = (x.grad[0] != 0).any(0)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[4:, :4] = True
    assert torch.equal(touched, expected)


def test_attention_sees_every_patch():
    net, (x, *conditions) = build(), arguments(1)
    x.requires_grad_()
    net(x, *conditions)[0, 4, 5, 2].backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_attention_is_softmax_over_context_and_picture():
    torch.manual_seed(0)
    attention = ModulatedAttention(16, 8, 5)
    with torch.no_grad():
        attention.query_norm.weight.normal_()
        attention.key_norm.weight.normal_()
    x, context = torch.randn(2, 4, 16), torch.randn(2, 3, 5)
    assert attention.context_kv is not None

    def heads(tensor: torch.Tensor) -> torch.Tensor:
        return rearrange(tensor, "b n (h c) -> b h n c", h=2)

    def norm(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return tensor * tensor.square().mean(-1, keepdim=True).add(1e-6).rsqrt() * weight

    q, k, v = map(heads, attention.qkv(x).chunk(3, dim=-1))
    more_k, more_v = map(heads, attention.context_kv(context).chunk(2, dim=-1))
    k, v = torch.cat([k, more_k], dim=2), torch.cat([v, more_v], dim=2)
    scores = norm(q, attention.query_norm.weight) @ norm(k, attention.key_norm.weight).mT / math.sqrt(8)
    expected = attention.out(rearrange(scores.softmax(-1) @ v, "b h n c -> b n (h c)"))
    torch.testing.assert_close(attention(x, context), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_head_norm_is_torchs_without_the_warning(dtype):
    torch.manual_seed(0)
    ours, theirs = HeadNorm(8, eps=1e-6), nn.RMSNorm(8, eps=1e-6)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 4, 8).to(dtype)
    assert ours(x).dtype == dtype
    assert torch.equal(ours(x), theirs(x.float()).to(dtype))
    if dtype == torch.bfloat16:
        with pytest.warns(UserWarning, match="Mismatch dtype"):
            assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("argument", ["x", "label", "vector", "context"])
def test_each_condition_matters(argument):
    net = build()
    given = dict(zip(("x", "label", "vector", "context"), arguments()))
    changed = given | {argument: given[argument] + 0.5}
    assert not torch.allclose(net(**given), net(**changed), atol=1e-3)


def test_conditions_may_be_left_out():
    net, (x, label, vector, context) = build(), arguments()
    torch.testing.assert_close(net(x, label), net(x, label, torch.zeros_like(vector)))
    assert not torch.allclose(net(x, label, vector), net(x, label, vector, context))


def test_the_order_of_context_tokens_does_not_matter():
    net, (x, label, vector, context) = build(), arguments()
    torch.testing.assert_close(net(x, label, vector, context.flip(1)), net(x, label, vector, context))


def test_errors():
    x, label, vector, context = arguments()
    with pytest.raises(ValueError, match="picture size 8 is not a multiple of the patch 3"):
        PatchTransformer(replace(CONFIG, patch=3))
    with pytest.raises(ValueError, match="width 16 is not a multiple of head_channels 7"):
        PatchTransformer(replace(CONFIG, head_channels=7))
    with pytest.raises(ValueError, match=r"reads 8 x 8 pixels, got \(8, 12\)"):
        build()(torch.zeros(2, 3, 8, 12), label)
    with pytest.raises(ValueError, match="attends to no context: set context_width"):
        build(replace(CONFIG, context_width=None))(x, label, vector, context)
