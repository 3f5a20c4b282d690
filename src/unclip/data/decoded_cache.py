"""Cache of a decoded data set: every picture once, as uint8, in a memory-mapped file that later runs reuse."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from unclip.data.decode_all import ROOM, decode_all
from unclip.data.sample import BadSample, BadSamples, Dataset, Sample
from unclip.disk import disk_full, is_full
from unclip.images import write_atomically

logger = logging.getLogger(__name__)


class Content(NamedTuple):
    """Short hex digests of a sample: of its captions, weight and metadata, and of its decoded picture."""

    text: str
    picture: str


@dataclass(frozen=True, kw_only=True)
class DecodedCache:
    """Pictures, captions and weights of the good samples of a data set, at one size.

    data: uint8 (m, 3, s, s), memory-mapped; rows: for each sample its row of `data`; samples: their text;
    digests: of the picture in each row of `data`.
    """

    data: UInt8[np.ndarray, "m 3 s s"]
    rows: Int[np.ndarray, " n"]
    samples: Sequence[Sample]
    digests: Sequence[str]
    bad: BadSamples

    @staticmethod
    def load(
        dataset: Dataset,
        size: int,
        cache: str | Path | None = None,
        *,
        workers: int | None = None,
        bad: BadSamples | None = None,
    ) -> "DecodedCache":
        """Decode `dataset` at `size`, or find it in the folder `cache` (default: a folder for temporary files).

        The cache is keyed by the data set's fingerprint and appears only when complete. Bad samples are left out, counted
        and named in `bad`, beside those that opening the data set found; too many raise TooManyBadSamples. workers:
        processes (default: the cores, at most 16).
        """
        if len(dataset) == 0:
            raise ValueError("the data set is empty")
        bad = bad if bad is not None else BadSamples()
        before = len(bad)
        folder = Path(cache) if cache is not None else Path(tempfile.gettempdir()) / "unclip-pictures"
        folder.mkdir(parents=True, exist_ok=True)
        array, record = (
            folder / f"{dataset.fingerprint[:24]}-{size}.npy",
            folder / f"{dataset.fingerprint[:24]}-{size}.json",
        )
        found = _cached(array, record, (len(dataset), 3, size, size))
        if found is None:
            logger.info("decoding %d pictures at %d px into %s", len(dataset), size, array)
            found = {"format": 1, "bad": decode_all(dataset, size, array, workers)}
        if len(found.get("pictures", ())) != len(dataset):
            found["pictures"] = [_digest(picture.tobytes()) for picture in np.load(array, mmap_mode="r")]
            _write_record(record, array, json.dumps(found).encode())
        reasons = found["bad"]
        samples, rows = [], []
        for index, key in enumerate(dataset.keys()):
            if key in reasons:
                bad.record(key, reasons[key])
                continue
            try:
                samples.append(dataset.info(index))
                rows.append(index)
            except BadSample as error:
                bad.record(error.key, error.reason)
        bad.check(len(dataset) + before)
        if len(bad):
            logger.debug("skipped %s", bad.summary())
        return DecodedCache(
            data=np.load(array, mmap_mode="r"),
            rows=np.array(rows, dtype=np.int64),
            samples=samples,
            digests=found["pictures"],
            bad=bad,
        )

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def size(self) -> int:
        """Side of the pictures."""
        return self.data.shape[-1]

    @property
    def weights(self) -> Float[np.ndarray, " n"]:
        """The samples' weights."""
        return np.array([sample.weight for sample in self.samples])

    def contents(self) -> dict[str, Content]:
        """Key -> digests of each sample, in order, for comparison with those of another time."""
        return {
            sample.key: Content(_digest(_text_of(sample)), self.digests[int(row)])
            for sample, row in zip(self.samples, self.rows, strict=True)
        }

    def info(self, index: int) -> Sample:
        """The text of a sample."""
        return self.samples[index]

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of a sample."""
        return self.samples[index].captions

    def pictures(self, indices: Sequence[int] | Int[np.ndarray, " b"]) -> UInt8[Tensor, "b 3 s s"]:
        """The pictures of some samples, as uint8 (b, 3, s, s)."""
        return torch.from_numpy(self.data[self.rows[np.asarray(indices, dtype=np.int64)]])

    def squares(
        self, indices: Sequence[int] | Int[np.ndarray, " b"], corners: Int[Tensor, "b 2"], side: int
    ) -> UInt8[Tensor, "b 3 w w"]:
        """The square of `side` pixels at its corner (down, right) of each picture; nothing else of them is read."""
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        places = zip(rows, corners.tolist(), strict=True)
        found = [self.data[row, :, top : top + side, left : left + side] for row, (top, left) in places]
        return torch.from_numpy(np.stack(found))


def _write_record(record: Path, array: Path, data: bytes) -> None:
    try:
        write_atomically(record, data, force=True)
    except OSError as error:
        # Without its record the array is of no use and only takes room.
        array.unlink(missing_ok=True)
        if is_full(error):
            raise disk_full(record, len(data), what="the decoded pictures' record", remedy=ROOM) from error
        raise


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=6).hexdigest()


def _text_of(sample: Sample) -> bytes:
    meta = {str(name): value for name, value in sample.meta.items()}
    return json.dumps([sample.captions, sample.weight, meta], sort_keys=True, default=str).encode()


def _cached(array: Path, record: Path, shape: tuple[int, ...]) -> dict[str, Any] | None:
    """What is noted beside a complete cache, or None where there is none of this shape."""
    try:
        found = json.loads(record.read_bytes())
        stored = np.load(array, mmap_mode="r")
    except (OSError, ValueError):
        return None
    return found if found.get("format") == 1 and stored.shape == shape else None
