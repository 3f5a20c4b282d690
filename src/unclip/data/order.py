"""The order of samples in training: a pure function of (seed, sample number), with no state to save.

Sample number n of a run means the same picture whatever the batch size, the number of workers and devices, or the
restarts in between.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from unclip.rng import derive


class Order:
    """Epochs without replacement. An item of weight w in (0, 1] takes part in a share w of the epochs.

    In epoch e item i takes part floor((e + 1) w_i + u_i) - floor(e w_i + u_i) times, with a fixed offset u_i in [0, 1):
    evenly spread, and its count over any stretch of E epochs is E w_i to within one. The start of any epoch has a closed
    form, so seeking costs one pass over the weights however far ahead it goes.
    """

    def __init__(
        self, count: int, seed: int, weights: Sequence[float] | Float[np.ndarray, " n"] | None = None
    ):
        if count < 1:
            raise ValueError(f"an order needs at least one item, not {count}")
        self.count, self.seed = count, seed
        self.weights = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
        if self.weights.shape != (count,):
            raise ValueError(f"{self.weights.shape} weights do not fit {count} items")
        if not (np.all(self.weights > 0) and np.all(self.weights <= 1)):
            raise ValueError(
                f"weights must lie in (0, 1]; found {self.weights.min()} to {self.weights.max()}"
            )
        # Multiples of 2^-20 add to whole numbers without rounding, so that weight 1 means exactly once an epoch.
        self._offsets = (_bits(derive(seed, "offsets"), count) >> np.uint64(44)).astype(np.float64) / 2**20
        self._epoch: tuple[int, np.ndarray] | None = None
        self._starts: dict[int, int] = {}

    def epoch_start(self, epoch: int) -> int:
        """The number of the first sample of an epoch."""
        return int(np.floor(epoch * self.weights + self._offsets).sum())

    def epoch_of(self, number: int) -> int:
        """The epoch that a sample number falls into."""
        low, high = 0, int((number + self.count) / float(self.weights.sum())) + 2
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.epoch_start(middle) <= number else (low, middle - 1)
        return low

    def _first(self, epoch: int) -> int:
        """`epoch_start`, remembered for the last few epochs: batches ask for the same ones again and again."""
        if epoch not in self._starts:
            if len(self._starts) > 8:
                self._starts.clear()
            self._starts[epoch] = self.epoch_start(epoch)
        return self._starts[epoch]

    def _epoch_near(self, number: int) -> int:
        """`epoch_of`, tried first where the last batch was."""
        if self._epoch is not None:
            for epoch in (self._epoch[0], self._epoch[0] + 1):
                if self._first(epoch) <= number < self._first(epoch + 1):
                    return epoch
        return self.epoch_of(number)

    def epoch(self, epoch: int) -> Int[np.ndarray, " n"]:
        """The items of an epoch in their order."""
        if self._epoch is None or self._epoch[0] != epoch:
            ends = np.floor((epoch + 1) * self.weights + self._offsets)
            times = (ends - np.floor(epoch * self.weights + self._offsets)).astype(np.int64)
            items = np.repeat(np.arange(self.count, dtype=np.int64), times)
            # Sorting raw generator output is stable between numpy versions; numpy's own shuffles need not be.
            rank = np.argsort(_bits(derive(self.seed, "epoch", epoch), len(items)), kind="stable")
            self._epoch = (epoch, items[rank])
        return self._epoch[1]

    def indices(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
        """The items of sample numbers start, ..., stop - 1, as int64."""
        if not 0 <= start <= stop:
            raise ValueError(f"sample numbers must satisfy 0 <= start <= stop, not {start}, {stop}")
        parts = [np.empty(0, dtype=np.int64)]
        epoch = self._epoch_near(start)
        while start < stop:
            first = self._first(epoch)
            items = self.epoch(epoch)[start - first : stop - first]
            parts.append(items)
            start += len(items)
            epoch += 1
        return np.concatenate(parts)


def _bits(seed: int, count: int) -> np.ndarray:
    """`count` uniform 64-bit integers."""
    return np.asarray(np.random.Philox(key=seed).random_raw(count), dtype=np.uint64)
