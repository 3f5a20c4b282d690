"""The transformer: what each token may see, and what each layer computes."""

import math

import pytest
import torch
from einops import rearrange

from unclip.nn.transformer import ACTIVATIONS, Block, QuickGelu, SelfAttention, Transformer, attention_mask

WIDTH, TOKENS = 12, 5


def net(**changes) -> Transformer:
    torch.manual_seed(0)
    return Transformer(WIDTH, 2, 3, **changes)


def tokens(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def moved(before: torch.Tensor, after: torch.Tensor) -> list[bool]:
    """For each token, whether its output changed by more than rounding."""
    return [bool(change > 1e-5) for change in (before - after).abs().amax(dim=(0, 2))]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("position", range(TOKENS))
def test_a_causal_transformer_never_looks_ahead(causal, position):
    transformer, x = net(causal=causal), tokens()
    changed = x.clone()
    changed[:, position] *= -1
    expected = [not causal or place >= position for place in range(TOKENS)]
    assert moved(transformer(x), transformer(changed)) == expected


@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_never_seen(causal):
    transformer, x = net(causal=causal), tokens()
    keys = torch.tensor([[True, False, True, True, False]]).expand(2, -1)
    changed = x.clone()
    changed[:, 1] *= -1
    assert moved(transformer(x, keys), transformer(changed, keys)) == [False, True, False, False, False]
    # The control: without the mask it is seen.
    assert sum(moved(transformer(x), transformer(changed))) >= 4


def test_each_sample_has_its_own_padding():
    transformer, x = net(), tokens()
    keys = torch.tensor([[True] * 5, [True, True, False, False, False]])
    together = transformer(x, keys)
    torch.testing.assert_close(together[0], transformer(x)[0])
    torch.testing.assert_close(together[1, :2], transformer(x[1:, :2])[0])


@pytest.mark.parametrize("cuts", [(1,), (3,), (1, 2, 3, 4)])
def test_reading_bit_by_bit_with_a_cache_is_reading_at_once(cuts):
    transformer, x = net(causal=True), tokens()
    keys = torch.tensor([[True] * 5, [True, False, True, False, True]])
    whole, cache, read = transformer(x, keys), transformer.cache(), 0
    for stop in (*cuts, TOKENS):
        part = transformer(x[:, read:stop], keys[:, :stop], cache)
        torch.testing.assert_close(part, whole[:, read:stop])
        read = stop
        assert [len(past) for past in cache] == [read, read]
    # The control: without the cache the last tokens know nothing of the others.
    assert (transformer(x[:, -1:]) - whole[:, -1:]).abs().max() > 1e-3


def test_nothing_but_padding_is_finite_with_finite_gradients():
    transformer, x = net(), tokens().requires_grad_()
    output = transformer(x, torch.zeros(2, TOKENS, dtype=torch.bool))
    output.sum().backward()
    assert output.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_attention_is_softmax_of_scaled_products():
    torch.manual_seed(0)
    attention, x = SelfAttention(WIDTH, 3), tokens()
    mask = attention_mask(TOKENS, causal=True, keys=None, device=x.device)
    q, k, v = rearrange(attention.qkv(x), "b n (three h c) -> three b h n c", three=3, h=3)
    scores = (q @ k.mT / math.sqrt(4)).masked_fill(torch.ones(TOKENS, TOKENS).triu(1).bool(), -torch.inf)
    expected = attention.out(rearrange(scores.softmax(-1) @ v, "b h n c -> b n (h c)"))
    torch.testing.assert_close(attention(x, mask), expected)


def test_a_block_normalises_before_and_adds_after():
    torch.manual_seed(0)
    block, x = Block(WIDTH, 3, mlp_ratio=2.0, activation="quick_gelu"), tokens()
    hidden = x + block.attention(block.norm_1(x))
    torch.testing.assert_close(block(x), hidden + block.mlp(block.norm_2(hidden)))
    assert block.mlp[0].out_features == 2 * WIDTH


def test_masks():
    device = torch.device("cpu")
    assert attention_mask(3, causal=False, keys=None, device=device) is None
    causal = attention_mask(3, causal=True, keys=None, device=device)
    assert causal is not None
    assert causal.int().tolist() == [[[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]]
    keys = torch.tensor([[True, False, True]])
    both = attention_mask(3, causal=True, keys=keys, device=device)
    assert both is not None
    assert both.int().tolist() == [[[[1, 0, 0], [1, 1, 0], [1, 0, 1]]]]
    last = attention_mask(3, causal=True, keys=keys, device=device, queries=2)
    assert torch.equal(last, both[:, :, 1:])


def test_activations():
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    exact = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    torch.testing.assert_close(ACTIVATIONS["gelu"]()(x), exact)
    torch.testing.assert_close(QuickGelu()(x), x / (1 + torch.exp(-1.702 * x)))
    assert 0.01 < (QuickGelu()(x) - exact).abs().max() < 0.03


def test_depth_does_not_blow_up_the_residual_stream():
    """GPT-2's initialisation: 32 blocks add about as much variance as one would."""
    torch.manual_seed(0)
    x = torch.randn(4, 8, 64)
    with torch.no_grad():
        assert 1 < Transformer(64, 32, 4)(x).var() < 2.5


def test_biases_start_at_zero_and_norms_at_one():
    for name, parameter in net().named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones(WIDTH))
        else:
            assert parameter.std() > 0.05


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 3"):
        SelfAttention(10, 3)


def test_the_looking_ahead_test_can_fail():
    """A transformer that forgot its mask moves tokens that it must not."""
    transformer, x = net(causal=True), tokens()
    transformer.causal = False
    changed = x.clone()
    changed[:, 4] *= -1
    assert moved(transformer(x), transformer(changed)) != [False] * 4 + [True]
