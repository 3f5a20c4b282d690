"""Decoding a whole data set into one array file with several processes. Nothing here needs torch: workers start fast."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from unclip.data.sample import BadSample, Dataset
from unclip.disk import remove_abandoned, reserve

_CHUNK = 256
ROOM = "make room, or keep them on another disk (--set data.cache=FOLDER)"


def decode_all(dataset: Dataset, size: int, array: Path, workers: int | None) -> dict[str, str]:
    """Decode every picture into `array` (written under a temporary name); returns key -> reason of the bad ones."""
    count = min(workers or os.cpu_count() or 1, 16, -(-len(dataset) // _CHUNK))
    partial = array.with_name(f".{array.name}.{os.getpid()}.partial")
    remove_abandoned(array.parent, f".{array.name}.*.partial")
    try:
        memory = np.lib.format.open_memmap(
            partial, mode="w+", dtype=np.uint8, shape=(len(dataset), 3, size, size)
        )
        del memory
        # Without its room a memory-mapped file ends the process where the disk is full.
        reserve(partial, partial.stat().st_size, name=array, what="the decoded pictures", remedy=ROOM)
        starts = range(0, len(dataset), _CHUNK)
        reasons: dict[str, str] = {}
        with _mapper(count, dataset, size, partial) as each:
            for found in each(starts):
                reasons |= found
        partial.replace(array)
    finally:
        partial.unlink(missing_ok=True)
    return reasons


@contextlib.contextmanager
def _mapper(
    count: int, dataset: Dataset, size: int, path: Path
) -> Iterator[Callable[[Sequence[int]], Iterator[dict[str, str]]]]:
    if count == 1:
        yield lambda starts: (_decode_chunk(dataset, size, path, start) for start in starts)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(
            count, mp_context=context, initializer=_adopt, initargs=(dataset, size, path)
        ) as pool:
            yield lambda starts: (
                one.result()
                for one in as_completed([pool.submit(_decode_adopted, start) for start in starts])
            )
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that decodes pictures ended before its work was done: for lack of memory, or because the program that "
            "trains does so outside of `if __name__ == '__main__':`"
        ) from error


_adopted: tuple[Dataset, int, Path] | None = None


def _adopt(dataset: Dataset, size: int, path: Path) -> None:
    """Keep the work's description in a worker process, so that it is sent once."""
    global _adopted
    _adopted = (dataset, size, path)


def _decode_adopted(start: int) -> dict[str, str]:
    assert _adopted is not None
    return _decode_chunk(*_adopted, start)


def _decode_chunk(dataset: Dataset, size: int, path: Path, start: int) -> dict[str, str]:
    memory = np.lib.format.open_memmap(path, mode="r+")
    reasons: dict[str, str] = {}
    for index in range(start, min(start + _CHUNK, len(dataset))):
        try:
            memory[index] = dataset.picture(index, size)
        except BadSample as error:
            reasons[error.key] = error.reason
    memory.flush()
    return reasons
