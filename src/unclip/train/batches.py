"""Training data by sample number: batches, and their preparation ahead of time on a background thread."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Int64

from unclip.checkpoints.manifest import Space
from unclip.rng import Noise
from unclip.stages.latent_form import LatentForm
from unclip.train.config import TrainConfig
from unclip.train.source import Source

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)


class BatchError(ValueError):
    """A batch could not be prepared; the message names the sample."""


class Batches(Protocol[B_co]):
    """The data of a stage: reading, augmentation, tokenising, and the embeddings that frozen encoders gave."""

    @property
    def tokenizer_json(self) -> str | None:
        """The tokenizer that belongs to the network, if it reads captions."""
        ...

    @property
    def space(self) -> Space | None:
        """The embedding space of the CLIP that the network learns from; a CLIP has its own."""
        ...

    @property
    def latent_form(self) -> LatentForm | None:
        """Form of the latents that the network learns; None for a network that learns anything else."""
        ...

    @property
    def train(self) -> Source:
        """The pictures that are learned."""
        ...

    @property
    def held_out(self) -> Source:
        """The pictures that are validated on."""
        ...

    def batch(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> B_co:
        """The samples with these consecutive numbers (positions in the run); `noise` has a stream for each.

        A pure function of both. It may be called on another thread.
        """
        ...

    def key(self, number: int) -> str:
        """The key of the sample with a number."""
        ...


class SampleBatches:
    """What the data of all stages share: training and held-out pictures. A base of `Batches`."""

    tokenizer_json: str | None = None
    space: Space | None = None
    latent_form: LatentForm | None = None

    def __init__(self, config: TrainConfig, device: torch.device, size: int | None = None):
        self.device = device
        self.train = Source(config, "train", device, size=size)
        self.held_out = Source(config, "validation", device, size=size)

    def key(self, number: int) -> str:
        """The key of the sample with a number."""
        return self.train.key(number)


class Prefetcher(Generic[B]):
    """Batches prepared ahead, at most `depth` of them at a time, on one background thread; 0: none ahead.

    `make` is a pure function of sample numbers, so what is taken does not depend on what was prepared. Its errors are
    raised where the batch is taken.
    """

    def __init__(self, make: Callable[[Int64[np.ndarray, " b"]], B], depth: int):
        self._make, self._depth = make, depth
        self._pending: dict[tuple[int, ...], Future[B]] = {}
        self._executor: ThreadPoolExecutor | None = None

    def take(self, numbers: Int64[np.ndarray, " b"], following: Iterable[Int64[np.ndarray, " _"]] = ()) -> B:
        """The batch of `numbers`; preparation of the first of those that follow begins."""
        if not self._depth:
            return self._make(numbers)
        wanted = {_name(one): one for one in (numbers, *islice(following, self._depth))}
        for stale in self._pending.keys() - wanted.keys():
            self._pending.pop(stale).cancel()
        for name, one in wanted.items():
            if name not in self._pending:
                self._pending[name] = self._submit(one)
        return self._pending.pop(_name(numbers)).result()

    def close(self) -> None:
        """End the thread, after the batch that it is preparing. A later `take` starts another."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None
        self._pending.clear()

    def _submit(self, numbers: Int64[np.ndarray, " b"]) -> "Future[B]":
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unclip-batches")
        return self._executor.submit(self._make, numbers)


def _name(numbers: Int64[np.ndarray, " b"]) -> tuple[int, ...]:
    return int(numbers[0]), len(numbers)
