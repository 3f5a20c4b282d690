"""Sample order: a pure function of (seed, number), fair to weights, cheap to seek."""

import numpy as np
import pytest

from unclip.data.order import Order


def test_epoch_is_a_permutation():
    order = Order(100, seed=3)
    assert sorted(order.indices(0, 100)) == list(range(100))
    assert sorted(order.indices(700, 800)) == list(range(100))
    assert order.indices(0, 100).tolist() != order.indices(100, 200).tolist()


def test_any_slicing_gives_the_same_sequence():
    weights = np.linspace(0.05, 1, 37)
    whole = Order(37, 5, weights).indices(0, 400)
    pieces = np.concatenate([Order(37, 5, weights).indices(start, start + 7) for start in range(0, 399, 7)])
    np.testing.assert_array_equal(whole[:399], pieces[:399])
    assert whole.dtype == np.int64


def test_seeds_differ_and_repeat():
    assert Order(50, 1).indices(0, 50).tolist() == Order(50, 1).indices(0, 50).tolist()
    assert Order(50, 1).indices(0, 50).tolist() != Order(50, 2).indices(0, 50).tolist()


def test_weight_is_the_share_of_epochs():
    weights = np.array([1.0, 0.5, 0.1, 0.35])
    order = Order(4, 0, weights)
    epochs = 200
    seen = np.bincount(order.indices(0, order.epoch_start(epochs)), minlength=4)
    assert seen[0] == epochs
    np.testing.assert_array_less(np.abs(seen - epochs * weights), 1 + 1e-9)
    for epoch in range(20):
        assert len(set(order.epoch(epoch).tolist())) == len(order.epoch(epoch))


def test_far_seek_needs_no_walk():
    order = Order(1000, 9, np.full(1000, 0.1))
    number = 10**12
    epoch = order.epoch_of(number)
    assert order.epoch_start(epoch) <= number < order.epoch_start(epoch + 1)
    assert len(order.indices(number, number + 10)) == 10


def test_rare_items_alone_do_not_stall():
    # Most epochs of a single rare item are empty.
    assert Order(1, 4, [0.01]).indices(0, 5).tolist() == [0] * 5


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least one"):
        Order(0, 1)
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        Order(2, 1, [1.0, 0.0])
    with pytest.raises(ValueError, match="do not fit"):
        Order(3, 1, [1.0, 1.0])
    with pytest.raises(ValueError, match="start <= stop"):
        Order(3, 1).indices(5, 4)
