"""Samples read and decoded by worker processes ahead of their use. Workers import no torch and start fast."""

import multiprocessing
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from unclip.data.decode import decode
from unclip.data.sample import Sample
from unclip.data.stream.dataset import Fault, Record, StreamDataset
from unclip.data.stream.faults import CORRUPT, Faults

_PIECE = 128


class Decoded(NamedTuple):
    """Some samples: for each a `Sample` or the `Fault` that it has, and its picture, white where there is none."""

    samples: list[Sample | Fault]
    pictures: UInt8[np.ndarray, "b 3 s s"]


class Reader:
    """Decoded samples of a data set at one size, by number.

    size: of the pictures; 0: none is decoded. workers: processes; 0: everything happens in `get`. captions: whether a sample
    without caption is a fault. What stores
    had to be asked again for is counted in `faults`. `StoreFailure` is raised where the samples are got.
    """

    def __init__(
        self,
        dataset: StreamDataset,
        size: int,
        *,
        workers: int = 0,
        captions: bool = True,
        faults: Faults | None = None,
    ):
        if workers < 0:
            raise ValueError(f"a reader has a number of workers of at least 0, not {workers}")
        self.dataset, self.size, self.workers, self.captions = dataset, size, workers, captions
        self.faults = faults if faults is not None else Faults(1.0)
        self._pending: OrderedDict[bytes, list[Future[_Piece]]] = OrderedDict()
        self._executor: ProcessPoolExecutor | None = None

    def ahead(self, indices: Int[np.ndarray, " b"]) -> None:
        """Begin to read some samples; without workers, nothing."""
        name = indices.tobytes()
        if not self.workers or name in self._pending:
            return
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_adopt,
                initargs=(self.dataset, self.size, self.captions),
            )
        # Near samples, such as those of a shard, go to one worker; `get` brings them into the order asked for.
        near = np.sort(indices)
        size = max(1, min(_PIECE, -(-len(indices) // self.workers)))
        self._pending[name] = [
            self._executor.submit(_decode_adopted, near[start : start + size])
            for start in range(0, len(near), size)
        ]

    def get(self, indices: Int[np.ndarray, " b"]) -> Decoded:
        """Some samples, in the order asked for."""
        if not self.workers:
            piece = _decode(self.dataset, self.size, self.captions, indices)
            self.faults.merge(*piece.retried)
            return Decoded(piece.samples, piece.pictures)
        self.ahead(indices)
        places = np.argsort(indices, kind="stable")
        pictures = np.empty((len(indices), 3, self.size, self.size), dtype=np.uint8)
        samples: dict[int, Sample | Fault] = {}
        start = 0
        try:
            for one in self._pending.pop(indices.tobytes()):
                piece = one.result()
                self.faults.merge(*piece.retried)
                here = places[start : start + len(piece.samples)]
                pictures[here] = piece.pictures
                samples.update(zip(here.tolist(), piece.samples))
                start += len(here)
        except BrokenProcessPool as error:
            self.close()
            raise RuntimeError(
                "a process that reads pictures was ended, often for lack of memory: give fewer workers"
            ) from error
        return Decoded([samples[place] for place in range(len(indices))], pictures)

    def forget(self, keep: int) -> None:
        """Give up what was begun, but for the last `keep` requests."""
        while len(self._pending) > keep:
            for one in self._pending.popitem(last=False)[1]:
                one.cancel()

    def batches(self, requests: Iterable[Int[np.ndarray, " _"]], *, ahead: int = 4) -> Iterator[Decoded]:
        """The samples of each request in turn, of which so many are read ahead."""
        waiting: list[Int[np.ndarray, " _"]] = []
        for request in requests:
            self.ahead(request)
            waiting.append(request)
            if len(waiting) > ahead:
                yield self.get(waiting.pop(0))
        for request in waiting:
            yield self.get(request)

    def close(self) -> None:
        """End the workers. A later request starts others."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None
        self._pending.clear()


class _Piece(NamedTuple):
    samples: list[Sample | Fault]
    pictures: np.ndarray
    retried: Any


def _decode(dataset: StreamDataset, size: int, captions: bool, indices: Sequence[int] | np.ndarray) -> _Piece:
    pictures = np.full((len(indices), 3, size, size), 255, dtype=np.uint8)
    samples: list[Sample | Fault] = []
    for picture, record in zip(pictures, dataset.read(indices)):
        found = _decode_one(record, picture, captions)
        samples.append(found)
    # Retries are counted where requests are made.
    asked = getattr(getattr(dataset, "store", None), "faults", None)
    retried = ({}, {}) if asked is None else asked.take()
    return _Piece(samples, pictures, retried)


def _decode_one(record: Record | Fault, into: np.ndarray, captions: bool) -> Sample | Fault:
    if isinstance(record, Fault):
        return record
    try:
        sample = record.sample() if captions else Sample(record.key, ())
        if into.size:
            into[:] = decode(record.picture, into.shape[-1])
        return sample
    except Fault as fault:
        return fault
    except ValueError as error:
        return Fault(record.key, CORRUPT, str(error))


_adopted: tuple[StreamDataset, int, bool] | None = None


def _adopt(dataset: StreamDataset, size: int, captions: bool) -> None:
    """Keep the work's description in a worker process, so that it is sent once."""
    global _adopted
    _adopted = (dataset, size, captions)


def _decode_adopted(indices: np.ndarray) -> _Piece:
    assert _adopted is not None
    return _decode(*_adopted, indices)
