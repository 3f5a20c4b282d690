"""Randomness: golden integers, because recipes of pictures depend on them, and statistics."""

import math

import pytest
import torch

from unclip.rng import Noise, derive, draw_seed

COUNT = 1 << 18
"""Draws for statistics: a mean of that many unit normals has a standard error of 0.002."""


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1].item()


def unmix(bits: int) -> int:
    """The number that the hash maps to `bits`: each of its steps undone."""
    mask = (1 << 64) - 1
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
        total, part = bits, bits >> shift
        while part:
            total, part = total ^ part, part >> shift
        bits = total * pow(factor, -1, 1 << 64) & mask
    return bits


def test_seed_zero_gives_the_published_numbers_of_splitmix64():
    """https://prng.di.unimi.it/splitmix64.c from state 0, whose own first state is one step ahead."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [bits % 2**64 for bits in Noise([0]).bits(4)[0].tolist()] == [0, *published]


def test_golden_integers():
    """These numbers are a contract: changing them changes every recorded picture."""
    noise = Noise([0, 1, 2**62 + 12345])
    assert noise.bits(2).tolist() == [
        [0, -2152535657050944081],
        [8841707400507832957, -4616330145664149646],
        [-2678003838688934809, 5073452867358111473],
    ]
    assert Noise([7]).fork("decoder").bits(2).tolist() == [[-1922504610946715336, -2633226770602081314]]
    assert Noise([7]).fork(3).fork("x").bits(1).tolist() == [[7546872197183402152]]
    assert [derive(0), derive(7, "prior", 1)] == [4761921975702974394, 1524297704262699353]
    assert Noise([1]).integers(1000, 4).tolist() == [[479, 749, 372, 438]]


def test_golden_normals():
    expected = [[-0.1973404586315155, -1.3001295328140259, 1.5411489009857178, 1.116033911705017]]
    noise = Noise([7]).fork("decoder")
    noise.bits(2)
    torch.testing.assert_close(noise.normal(5)[:, :4], torch.tensor(expected), atol=1e-6, rtol=0)


def test_normals_have_the_moments_of_normals():
    x = Noise([5]).fork("statistics").normal(COUNT)[0].double()
    assert x.dtype == torch.float64
    assert abs(x.mean()) < 0.01
    assert abs(x.var() - 1) < 0.015
    assert abs(x.pow(3).mean()) < 0.03
    assert abs(x.pow(4).mean() - 3) < 0.06
    # Kolmogorov and Smirnov: sqrt(n) D exceeds 1.95 once in a thousand seeds.
    cdf = torch.special.ndtr(x.sort().values)
    assert math.sqrt(COUNT) * (cdf - torch.arange(COUNT) / COUNT).abs().max() < 1.95
    assert 4 < x.abs().max() < 6.8


def test_uniforms_are_uniform():
    u = Noise([6]).uniform(COUNT)[0]
    assert u.dtype == torch.float64
    assert math.sqrt(COUNT) * (u.sort().values - torch.arange(COUNT) / COUNT).abs().max() < 1.95
    # The lowest digits too: the fraction after 2^20 steps.
    low = u * 2**20 % 1
    assert math.sqrt(COUNT) * (low.sort().values - torch.arange(COUNT) / COUNT).abs().max() < 1.95


def test_integers_fill_their_range_evenly():
    counts = Noise([8]).integers(10, COUNT)[0].bincount(minlength=10).double()
    assert len(counts) == 10
    # Chi-squared with 9 degrees of freedom exceeds 27.9 once in a thousand seeds.
    assert (counts - COUNT / 10).square().sum() / (COUNT / 10) < 27.9


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_streams_do_not_know_each_other(draw):
    """Neighbouring seeds, forks of one seed, and a stream and itself a little later; six standard errors are 0.012."""
    parent = Noise([10, 11])
    forks = [getattr(parent.fork(purpose), draw)(COUNT)[0] for purpose in ("a", "b", 0, 1)]
    first, second = getattr(parent, draw)(COUNT)
    for a, b in [(first, second), (first, forks[0]), (forks[0], forks[1]), (forks[2], forks[3])]:
        assert abs(correlation(a, b)) < 0.012
        assert abs(correlation(a.square(), b.square())) < 0.012
    for lag in (1, 2, COUNT // 2):
        assert abs(correlation(first[lag:], first[:-lag])) < 0.02
    assert correlation(first, first) > 0.999


def test_the_first_draws_of_many_seeds_are_a_sample_too():
    x = Noise(list(range(1, COUNT // 4))).normal(2)
    assert abs(x.mean()) < 0.02
    assert abs(x.var() - 1) < 0.03
    assert abs(correlation(x[:, 0], x[:, 1])) < 0.025
    assert abs(correlation(x[1:, 0], x[:-1, 0])) < 0.025


@pytest.mark.parametrize("draw", ["bits", "normal", "uniform"])
def test_a_sample_depends_on_its_own_seed_only(draw):
    together, alone = Noise([3, 2**63 - 1, 5]), Noise([5])
    for shape in ((4,), (3, 2), ()):
        assert torch.equal(getattr(together, draw)(*shape)[2:], getattr(alone, draw)(*shape))
    assert torch.equal(getattr(together.fork("x"), draw)(3)[2:], getattr(alone.fork("x"), draw)(3))


def test_draws_advance_and_forks_do_not_care():
    noise, whole = Noise([4]), Noise([4]).bits(5)
    early = noise.fork("x").bits(2)
    parts = [noise.bits(3), noise.bits(2)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(noise.fork("x").bits(2), early)
    assert not torch.equal(noise.bits(3), parts[0])


def test_shapes_and_lengths():
    noise = Noise([1, 2])
    assert len(noise) == 2
    assert noise.normal(3, 5, 7).shape == (2, 3, 5, 7)
    assert noise.normal(3).dtype == torch.float32
    assert noise.uniform().shape == (2,)
    assert noise.integers(3, 4).dtype == torch.int64
    assert Noise([]).normal(3).shape == (0, 3)


def test_seeds_may_be_a_tensor():
    for dtype in (torch.int64, torch.int32):
        assert torch.equal(Noise(torch.tensor([3, 200], dtype=dtype)).bits(2), Noise([3, 200]).bits(2))


def test_the_largest_draw_lies_below_one():
    noise = Noise([0])
    last = unmix(2**64 - 1)
    noise.keys = torch.tensor([last - 2**64 if last >= 2**63 else last])
    assert noise.bits(1).tolist() == [[-1]]
    noise.counter = 0
    assert noise.uniform().item() == 1 - 2**-53
    noise.counter = 0
    assert noise.integers(10).item() == 9


def test_derived_seeds_differ_and_fit():
    seeds = {derive(seed, *path) for seed in range(50) for path in ((), ("a",), ("b",), ("a", 0), ("a", 1))}
    assert len(seeds) == 250
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(3, "a", 1) == derive(3, "a", 1)


def test_drawn_seeds_are_short_and_new():
    seeds = {draw_seed() for _ in range(20)}
    assert len(seeds) > 15
    assert all(0 <= seed < 2**32 for seed in seeds)
