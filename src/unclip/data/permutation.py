"""Permutations of any number of items in constant memory: keyed Feistel networks with cycle walking.

Item n of a permutation costs a few hashes, wherever n is, so an order of billions of samples needs neither a table nor a pass
over the data (Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002).
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from unclip.rng import derive

_ROUNDS = 6
_MASK = 0xFFFFFFFFFFFFFFFF


def permuted(
    positions: Sequence[int] | Int[np.ndarray, " b"], count: int, key: int | np.ndarray
) -> Int[np.ndarray, " b"]:
    """Where each of `positions` in [0, count) goes under the permutation of `key`; int64.

    key: one 64-bit integer, or one for each position. The network acts on a * b >= count places, a near the root of
    count; a place outside of [0, count) is permuted again until it is inside, which happens to few of them.
    """
    places = np.asarray(positions, dtype=np.int64)
    if count < 1 or (places.size and not 0 <= places.min() <= places.max() < count):
        raise ValueError(f"positions must lie in [0, {count})")
    rows = math.isqrt(count - 1) + 1
    columns = -(-count // rows)
    keys = np.broadcast_to(np.asarray(key, dtype=np.uint64), places.shape)
    result = _network(places.astype(np.uint64), rows, columns, keys)
    outside = np.flatnonzero(result >= count)
    while outside.size:
        result[outside] = _network(result[outside], rows, columns, keys[outside])
        outside = outside[result[outside] >= count]
    return result.astype(np.int64)


def _network(places: np.ndarray, rows: int, columns: int, keys: np.ndarray) -> np.ndarray:
    left, right = np.divmod(places, np.uint64(columns))
    for number in range(_ROUNDS):
        if number % 2:
            right = (right + _hashed(left, keys, number)) % np.uint64(columns)
        else:
            left = (left + _hashed(right, keys, number)) % np.uint64(rows)
    return left * np.uint64(columns) + right


def _hashed(values: np.ndarray, keys: np.ndarray, number: int) -> np.ndarray:
    """32 bits of SplitMix64 of value, key and round, so that sums stay below 2^64."""
    step = np.uint64((number + 1) * 0x9E3779B97F4A7C15 & _MASK)
    return mixed(mixed(values + step) ^ keys) >> np.uint64(32)


def mixed(bits: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser of 64-bit integers."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


class PermutedOrder:
    """The order of samples of data sets that are read as they are needed: a pure function of (seed, sample number).

    Each epoch shows every item once. Runs of `block` neighbouring items, which lie together in a shard, are permuted, and
    then the items within windows of `window` samples; so a window's items come from window / block places, and a cache of
    a few windows serves a run. block 1 permutes all items freely. Memory and the cost of seeking are constant.
    """

    def __init__(self, count: int, seed: int, *, block: int = 1, window: int | None = None):
        if count < 1:
            raise ValueError(f"an order needs at least one item, not {count}")
        if block < 1 or (window is not None and window < block):
            raise ValueError(
                f"an order needs 1 <= block <= window, not a block of {block} and a window of {window}"
            )
        self.count, self.seed, self.block = count, seed, block
        self.window = block if window is None else window // block * block

    def indices(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
        """The items of sample numbers start, ..., stop - 1, as int64."""
        if not 0 <= start <= stop:
            raise ValueError(f"sample numbers must satisfy 0 <= start <= stop, not {start}, {stop}")
        return self.of(np.arange(start, stop, dtype=np.int64))

    def of(self, numbers: Sequence[int] | Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
        """The items of any sample numbers, as int64."""
        numbers = np.asarray(numbers, dtype=np.int64)
        result = np.empty_like(numbers)
        epochs, positions = np.divmod(numbers, self.count)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = self._in_epoch(int(epoch), positions[here])
        return result

    def redrawn(self, numbers: Int[np.ndarray, " b"], attempt: int) -> Int[np.ndarray, " b"]:
        """Another item for each of some sample numbers whose item cannot be used: uniform, by a hash."""
        key = np.uint64(derive(self.seed, "redraw", attempt))
        bits = mixed(mixed(np.asarray(numbers).astype(np.uint64)) ^ key)
        return (bits % np.uint64(self.count)).astype(np.int64)

    def uniform(self, numbers: Int[np.ndarray, " b"], attempt: int) -> np.ndarray:
        """A number in [0, 1) for each sample number, to compare with the weight of its item."""
        key = np.uint64(derive(self.seed, "weight", attempt))
        return (mixed(mixed(np.asarray(numbers).astype(np.uint64)) ^ key) >> np.uint64(11)) * 2.0**-53

    def _in_epoch(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        whole = self.count // self.block
        if whole < 2:
            return permuted(positions, self.count, derive(self.seed, "epoch", epoch))
        if self.window > self.block:
            positions = self._within_windows(epoch, positions)
        slots, offsets = np.divmod(positions, self.block)
        blocks = slots.copy()
        # The items behind the last whole block are a shorter one, which comes last.
        inside = slots < whole
        blocks[inside] = permuted(slots[inside], whole, derive(self.seed, "blocks", epoch))
        # Turned by an amount of its own in every epoch, so that it consists of other items each time.
        turn = derive(self.seed, "turn", epoch) % self.count if self.block > 1 else 0
        return (blocks * self.block + offsets + turn) % self.count

    def _within_windows(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        result = np.empty_like(positions)
        windows = positions // self.window
        for window in np.unique(windows):
            here = windows == window
            first = int(window) * self.window
            length = min(self.window, self.count - first)
            key = derive(self.seed, "window", epoch, int(window))
            result[here] = first + permuted(positions[here] - first, length, key)
        return result
