"""The transformer of lucidrains' priors: it looks back only, turns without stretching, and knows distances, not places."""

import pytest
import torch

from unclip.nn.rotary_transformer import RelativeBias, RotaryTransformer, bucket, rotate, rotations


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_tokens_to_come_are_not_seen():
    torch.manual_seed(0)
    transformer = RotaryTransformer(8, 2, 2, 4, norm_in=True)
    x = drawn(1, 5, 8)
    changed = x.clone()
    changed[:, 3] = drawn(8, seed=1)
    before, after = transformer(x), transformer(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().amax(-1).min() > 1e-3


def test_turning_keeps_lengths_and_products_depend_on_distances():
    q, k, angles = drawn(1, 1, 1, 10), drawn(1, 1, 1, 10, seed=1), rotations(9, 6, torch.device("cpu"))
    turned = rotate(q.expand(1, 1, 9, 10), angles)
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1).expand(1, 1, 9))
    # The channels beyond the turned ones stay, and at the first place all do.
    assert torch.equal(turned[..., 6:], q[..., 6:].expand(1, 1, 9, 4))
    assert torch.equal(turned[..., 0, :], q[..., 0, :])
    products = turned[0, 0] @ rotate(k.expand(1, 1, 9, 10), angles)[0, 0].T
    for distance in range(-8, 9):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    assert products[0].std() > 0.1


@pytest.mark.parametrize(
    ("distance", "expected"),
    [(0, 0), (15, 15), (16, 16), (18, 16), (19, 17), (64, 26), (127, 31), (5000, 31)],
)
def test_buckets(distance, expected):
    """T5's (arXiv 1910.10683, section 2.1): 16 exact ones, then 16 to a distance of 128, evenly in the logarithm."""
    assert bucket(torch.tensor(distance)).item() == expected


@torch.no_grad()
def test_the_bias_counts_the_key_that_all_may_look_at():
    relative = RelativeBias(3)
    bias = relative(4)
    assert bias.shape == (3, 4, 5)
    assert bias[0].isinf().tolist() == [[False] * (token + 2) + [True] * (3 - token) for token in range(4)]
    # Key 0 is the learned one; keys 1 to 4 are the tokens, itself and the one before at distance 0.
    last = relative.buckets.weight[[3, 2, 1, 0, 0]].T
    assert torch.equal(bias[:, 3], last)
