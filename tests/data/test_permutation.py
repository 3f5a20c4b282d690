"""Orders in constant memory: permutations, their seeking, their locality, and two billion samples."""

import time
import tracemalloc

import numpy as np
import pytest

from unclip.data.permutation import PermutedOrder, permuted

TWO_BILLION = 2_000_000_000


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 97, 1000, 4096, 10_007])
def test_every_item_once(count):
    found = permuted(np.arange(count), count, 5)
    assert sorted(found.tolist()) == list(range(count))


def test_keys_give_different_permutations_that_look_random():
    count = 100_000
    a, b = (permuted(np.arange(count), count, key) for key in (1, 2))
    # The number of agreeing places is Poisson distributed with mean 1.
    assert (a == b).sum() < 10
    assert (a == np.arange(count)).sum() < 10
    assert abs(np.corrcoef(a, np.arange(count))[0, 1]) < 0.02
    # Neighbours end a third of the range apart, as any two items of a random permutation.
    assert abs(np.abs(np.diff(a)).mean() / count - 1 / 3) < 0.01
    # Halves mix: a chi-squared test over 16 x 16 cells of (place, item).
    table = np.histogram2d(np.arange(count), a, bins=16)[0]
    chi = ((table - count / 256) ** 2 / (count / 256)).sum()
    assert 120 < chi < 340


@pytest.mark.parametrize(
    ("block", "window"), [(1, None), (1, 50), (8, 64), (10, 1000), (16, 48), (5000, None)]
)
@pytest.mark.parametrize("count", [1, 2, 100, 999, 1009])
def test_epochs_show_every_item_once(count, block, window):
    order = PermutedOrder(count, 3, block=block, window=window)
    for epoch in range(3):
        found = order.indices(epoch * count, (epoch + 1) * count)
        assert sorted(found.tolist()) == list(range(count))
    if count > 2:
        assert order.indices(0, count).tolist() != order.indices(count, 2 * count).tolist()


def test_seeking_gives_what_reading_from_the_start_gives():
    order = PermutedOrder(1000, 7, block=16, window=128)
    whole = order.indices(0, 5000)
    for start, stop in ((0, 1), (990, 1010), (2345, 2345), (4999, 5000)):
        assert order.indices(start, stop).tolist() == whole[start:stop].tolist()
    picked = np.array([4999, 3, 1500, 3])
    assert order.of(picked).tolist() == whole[picked].tolist()


def test_the_order_is_what_it_was():
    """Runs that have begun go on in their order: these numbers must never change."""
    assert PermutedOrder(1000, 7).indices(0, 8).tolist() == [266, 690, 116, 207, 769, 715, 968, 757]
    windowed = PermutedOrder(1000, 7, block=16, window=128).indices(995, 1003)
    assert windowed.tolist() == [933, 727, 805, 78, 81, 682, 448, 728]


def test_a_window_comes_from_few_blocks():
    order = PermutedOrder(1_000_000, 1, block=1000, window=16_000)
    found = order.indices(160_000, 176_000)
    # A turned block touches two of the fixed ones.
    assert len(np.unique(found // 1000)) <= 32
    assert len(np.unique(found)) == 16_000
    # Its items are mixed: neighbours are seldom of the same block.
    assert (np.diff(found // 1000) == 0).mean() < 0.1


def test_two_billion_samples_in_constant_memory_and_time():
    order = PermutedOrder(TWO_BILLION, 11, block=1 << 13, window=1 << 17)
    free = PermutedOrder(TWO_BILLION, 11)
    tracemalloc.start()
    began = time.perf_counter()
    for one in (order, free):
        for start in (0, 123_456_789, TWO_BILLION - 500, 7 * TWO_BILLION + 1_999_999_000):
            found = one.indices(start, start + 1000)
            assert len(np.unique(found)) == 1000 or start % TWO_BILLION > TWO_BILLION - 1000
            assert found.min() >= 0
            assert found.max() < TWO_BILLION
    seconds = time.perf_counter() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20
    assert seconds < 2


def test_two_billion_samples_are_a_permutation_where_looked_at():
    """Two million numbers, evenly spread over an epoch, name two million items, evenly spread."""
    order = PermutedOrder(TWO_BILLION, 11, block=1 << 13, window=1 << 17)
    numbers = np.arange(0, TWO_BILLION, 1000, dtype=np.int64)
    found = order.of(numbers[:200_000])
    assert len(np.unique(found)) == len(found)
    free = PermutedOrder(TWO_BILLION, 11).of(numbers)
    assert len(np.unique(free)) == len(free)
    shares = np.histogram(free, bins=10, range=(0, TWO_BILLION))[0] / len(free)
    assert np.abs(shares - 0.1).max() < 0.002


@pytest.mark.parametrize(
    "wrong", [{"count": 0}, {"block": 0}, {"block": 8, "window": 4}], ids=lambda one: str(one)
)
def test_orders_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="needs"):
        PermutedOrder(**{"count": 10, "seed": 0, **wrong})
