"""Attention multiplied out is the fused kernel's, forward and backward, and gives way to it where that is faster."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from unclip.nn import dot_product
from unclip.nn.dot_product import attend


def inputs(queries=5, keys=9):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, queries, 8), (2, 3, keys, 8), (2, 3, keys, 8)]
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("masked", [False, True])
def test_training_gives_the_fused_kernels_values_and_gradients(masked):
    mask = torch.ones(5, 9, dtype=torch.bool).tril(4)[None, None] if masked else None
    ours, reference = inputs(), inputs()
    found, expected = attend(*ours, mask), scaled_dot_product_attention(*reference, attn_mask=mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for one, other in zip(ours, reference):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("training", "keys", "fused"), [(True, 9, False), (False, 9, True), (True, 600, True)]
)
def test_the_fused_kernel_runs_where_nothing_is_learned_or_the_sequence_is_long(
    monkeypatch, training, keys, fused
):
    calls = []
    monkeypatch.setattr(
        dot_product.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **options: calls.append(1) or scaled_dot_product_attention(*args, **options),
    )
    with torch.set_grad_enabled(training):
        attend(*inputs(keys=keys))
    assert bool(calls) == fused
