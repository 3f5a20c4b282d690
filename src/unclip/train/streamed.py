"""Training data of any size: read as they are needed, in an order without memory; what cannot be used is replaced.

Which picture a sample number shows is a pure function of the seed, the number and the data: an item that is bad, held out or
passed over for its weight is replaced by another one, drawn by a hash of the number.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64
from torch import Tensor

from unclip.data.decoded_cache import Content
from unclip.data.permutation import PermutedOrder
from unclip.data.sample import Sample, digest_of
from unclip.data.stream.dataset import Fault, StreamDataset
from unclip.data.stream.disk_cache import GIB, DiskCache
from unclip.data.stream.faults import Faults
from unclip.data.stream.open import open_stream, split_of
from unclip.data.stream.parquet import ParquetPictures
from unclip.data.stream.reader import Reader
from unclip.data.stream.selection import Selected, Selection
from unclip.data.stream.sidecar import IMAGE, SidecarError, Sidecars
from unclip.images import from_uint8
from unclip.rng import Noise, derive
from unclip.train.config import DataConfig, TrainConfig
from unclip.train.source import Part, Source, is_held_out, shifted

logger = logging.getLogger(__name__)

BLOCK, WINDOW = 4096, 65_536
"""Neighbouring samples that stay together in the order, and how many are mixed (`PermutedOrder`)."""
_ATTEMPTS = 64
_HELD_OUT = 2048
_KEPT_BATCHES = 8
_FOR_TOKENIZER = 20_000
_FOR_STATISTICS = 16_384


class StreamedSource(Source):
    """Pictures and captions of one part of a data set that is not held in memory. `Source` chooses it."""

    # Each is read for it, perhaps from a store far away.
    quick_look: ClassVar[int] = 64

    def __init__(self, config: TrainConfig, part: Part, device: torch.device, *, size: int | None = None):
        data = config.data
        if data.factors:
            raise ValueError(
                "data.factors weigh samples by their metadata, which streamed data do not know ahead: write `weight` into "
                "the samples, or set data.reading=decoded"
            )
        self.device, self.shift, self.size = device, data.shift, size or data.size
        self.place = data.path
        self.part: Part = part
        cache = Path(data.cache or Path(config.out).parent / "cache") / "stream"
        self.cache = DiskCache(cache / "pieces", round(data.cache_gib * GIB))
        self._bad_share = data.bad_share
        self.dataset, shared = self._open(data, part)
        self._share = data.held_out if shared else 0.0
        self.faults = Faults(data.bad_share, option="--set data.bad_share")
        self.order = PermutedOrder(
            len(self.dataset), derive(config.seed, "order"), block=BLOCK, window=WINDOW
        )
        self.reader = Reader(self.dataset, self.size, workers=data.workers, faults=self.faults)
        self.decoded = _View(self)
        self._joined: dict[str, Sidecars] = {}
        self._kept: OrderedDict[int, tuple[Sample, np.ndarray]] = OrderedDict()
        self._seen, self._room, self._last = 0, 0, np.zeros(0, dtype=np.int64)
        self._subset = None if part == "train" else np.fromiter(self._held_out(), dtype=np.int64)
        if self.dataset.faults.counts and part == "train":
            logger.warning("%s: %s", data.path, self.dataset.faults.summary())

    def _open(self, data: DataConfig, part: Part) -> tuple[StreamDataset, bool]:
        """The data set of a part, and whether it also holds the other part."""

        def opened(split: str | None) -> StreamDataset:
            faults = Faults(self._bad_share, option="--set data.bad_share")
            return open_stream(data.path, split=split, cache=self.cache, faults=faults)

        def selected(found: StreamDataset) -> StreamDataset:
            if data.selection is None:
                return found
            return Selected(found, Selection(data.selection, self.cache))

        whole = opened(None)
        ending = "parquet" if isinstance(whole, ParquetPictures) else "tar"
        splits = {split_of(f"{unit.name}.{ending}") for unit in whole.units}
        if data.split is None or data.split not in splits:
            return selected(whole), True
        if data.validation is None or data.validation not in splits:
            return selected(opened(data.split)), True
        # What a run is validated on is not selected: runs on different selections are compared by it.
        return (selected(opened(data.split)) if part == "train" else opened(data.validation)), False

    def _held_out(self) -> Iterator[int]:
        """The items to validate on: few enough to be kept in memory, from units in random order."""
        found = 0
        units = PermutedOrder(len(self.dataset.units), derive(self.order.seed, "held out"))
        for number in units.indices(0, len(self.dataset.units)):
            start = self.dataset.units[int(number)].start
            for place, key in enumerate(self.dataset.keys(int(number))):
                if self._share and not is_held_out(key, self._share):
                    continue
                yield start + place
                found += 1
                if found == _HELD_OUT:
                    return
        if not found:
            raise ValueError(
                f"{self.dataset.units[0].name} and the others hold no sample to validate on: give more data, or a "
                "larger data.held_out"
            )

    def __len__(self) -> int:
        return len(self.dataset) if self._subset is None else len(self._subset)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the files' names and sizes, and of the pictures' size."""
        return digest_of(["streamed", self.dataset.fingerprint, self.size])[:24]

    def contents(self) -> dict[str, Content]:
        """One entry for all samples: what the files are, and their times or entity tags.

        What lies in billions of samples is not read for it. So files that were written again count as changed, even with
        the same content (`data.changed=allow` goes on with them).
        """
        units = range(len(self.dataset.units))
        digest = digest_of([self.dataset.fingerprint, *(self.dataset.state(unit) for unit in units)])
        return {f"(all {len(self.dataset)} samples)": Content("streamed", digest)}

    def indices(self, numbers: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        """Which items the samples with these numbers show; they are read, and the next ones begin to be."""
        numbers = np.asarray(numbers, dtype=np.int64)
        found = self.order.of(numbers)
        self._ahead(numbers)
        waiting = np.arange(len(numbers))
        for attempt in range(_ATTEMPTS):
            usable = self._read(found[waiting], numbers[waiting], attempt)
            waiting = waiting[~usable]
            if not len(waiting):
                self._seen += len(numbers)
                self.faults.check(self._seen, len(self.dataset))
                return found
            found[waiting] = self.order.redrawn(numbers[waiting], attempt)
        self.faults.check(len(numbers), len(numbers))
        raise ValueError(
            f"sample {numbers[waiting[0]]}: none of {_ATTEMPTS} items in its place can be used; {self.faults.summary()}"
        )

    def _ahead(self, numbers: Int64[np.ndarray, " b"]) -> None:
        """Begin to read what will be asked for next, by the distance to what was asked for last."""
        step = int(numbers[0] - self._last[0]) if len(self._last) == len(numbers) else 0
        self._last = numbers
        self.reader.forget(2 * self.reader.workers + 2)
        for count in range(1, self.reader.workers + 1):
            if step > 0:
                self.reader.ahead(self.order.of(numbers + count * step))

    def _read(
        self, items: Int64[np.ndarray, " b"], numbers: Int64[np.ndarray, " b"], attempt: int
    ) -> np.ndarray:
        """Read some items and keep those that can be used; which those are."""
        decoded = self.reader.get(items)
        draws = self.order.uniform(numbers, attempt)
        usable = np.zeros(len(items), dtype=bool)
        for place, (item, sample) in enumerate(zip(items.tolist(), decoded.samples)):
            if isinstance(sample, Fault):
                self.faults.record(sample.kind, sample.key, sample.reason)
                continue
            held_out = bool(self._share) and is_held_out(sample.key, self._share)
            if held_out or draws[place] >= sample.weight:
                continue
            if not all(self._rows(kind, [item], [sample.key])[1][0] for kind in self._joined):
                continue
            usable[place] = True
            self._keep(item, sample, decoded.pictures[place])
        return usable

    def _keep(self, item: int, sample: Sample, picture: np.ndarray) -> None:
        self._kept[item] = (sample, picture)
        self._kept.move_to_end(item)

    def _get(self, indices: Sequence[int] | np.ndarray) -> list[tuple[Sample, np.ndarray]]:
        """Samples and pictures of some indices, from what was just read where they are there."""
        items = np.asarray(indices, dtype=np.int64)
        items = items if self._subset is None else self._subset[items]
        missing = np.array(
            [one for one in dict.fromkeys(items.tolist()) if one not in self._kept], dtype=np.int64
        )
        if len(missing):
            decoded = self.reader.get(missing)
            for item, sample, picture in zip(missing.tolist(), decoded.samples, decoded.pictures):
                if isinstance(sample, Fault):
                    self.faults.record(sample.kind, sample.key, sample.reason)
                    if self._subset is None:
                        raise sample
                    # A held-out picture that is damaged is shown white, and counted.
                    sample = Sample(sample.key, ("",))
                self._keep(item, sample, picture)
            self.faults.check(self._seen + len(items), len(self.dataset))
        found = [self._kept[item] for item in items.tolist()]
        self._room = max(self._room, _KEPT_BATCHES * len(items), _HELD_OUT if self._subset is not None else 0)
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)
        return found

    def key(self, number: int) -> str:
        """The key of the picture that sample `number` shows."""
        return self._get(self.indices(np.array([number])))[0][0].key

    def pictures(
        self, indices: Int64[np.ndarray, " b"], noise: Noise | None = None
    ) -> Float[Tensor, "b 3 s s"]:
        """Pictures in [-1, 1] on the device, shifted at random where `noise` and the config's `shift` are given."""
        assert self.reader.size, "pictures are passed over"
        pixels = torch.from_numpy(np.stack([picture for _, picture in self._get(indices)])).to(self.device)
        if noise is not None and self.shift:
            offsets = noise.fork("shift").integers(2 * self.shift + 1, 2) - self.shift
            pixels = shifted(pixels, offsets, self.shift)
        return from_uint8(pixels)

    def squares(
        self, indices: Int64[np.ndarray, " b"], corners: Int64[Tensor, "b 2"], side: int
    ) -> Float[Tensor, "b 3 w w"]:
        """The square of `side` pixels at its corner (down, right) of each picture, in [-1, 1] on the device."""
        pictures = (picture for _, picture in self._get(indices))
        found = [
            picture[:, top : top + side, left : left + side]
            for picture, (top, left) in zip(pictures, corners.tolist())
        ]
        return from_uint8(torch.from_numpy(np.stack(found)).to(self.device))

    def captions(self, indices: Int64[np.ndarray, " b"], noise: Noise | None = None) -> list[str]:
        """One caption of each picture: drawn with `noise`, or else its first."""
        samples = [sample for sample, _ in self._get(indices)]
        if noise is None:
            return [sample.captions[0] for sample in samples]
        draws = noise.fork("caption").uniform().tolist()
        return [sample.captions[int(draw * len(sample.captions))] for sample, draw in zip(samples, draws)]

    def read_captions(self, tokenizer: Any) -> None:
        """Nothing: captions are tokenised as they are read."""

    @property
    def has_tokens(self) -> bool:
        """False."""
        return False

    def augmentations(self, indices: Int64[np.ndarray, " b"], count: int) -> Float[Tensor, "b a"]:
        """The `count` augmentation parameters in a picture's metadata (`augment`); 0 without them."""
        found = [sample.meta.get("augment") or [0.0] * count for sample, _ in self._get(indices)]
        if other := next((each for each in found if len(each) != count), None):
            raise ValueError(f"the data have {len(other)} augmentation parameters, the decoder reads {count}")
        return torch.tensor(found, device=self.device)

    def all_captions(self) -> list[str]:
        """Every caption of a random part of the samples, enough to learn a tokenizer from."""
        found: list[str] = []
        for start in range(0, min(_FOR_TOKENIZER, len(self.dataset)), 256):
            stop = min(start + 256, _FOR_TOKENIZER, len(self.dataset))
            for record in self.dataset.read(self.order.indices(start, stop)):
                if not isinstance(record, Fault) and not (
                    self._share and is_held_out(record.key, self._share)
                ):
                    try:
                        found += record.sample().captions
                    except Fault:
                        continue
        return found

    def attach(self, sidecars: Sidecars) -> Float[Tensor, "n d"]:
        """Take embeddings from sidecars; samples without one are replaced, and counted. Some of them, for statistics."""
        if sidecars.files:
            self.join(sidecars)
        rows: list[np.ndarray] = []
        units = self.dataset.units
        numbers = PermutedOrder(len(units), derive(self.order.seed, "statistics"))
        for number in numbers.indices(0, len(units)):
            found = sidecars.unit(units[int(number)].name)
            if found is not None:
                hashes, embeddings, ok = found
                if isinstance(self.dataset, Selected):
                    ok = ok & np.isin(hashes, self.dataset.selection.hashes(units[int(number)].name))
                rows.append(np.asarray(embeddings)[ok][:_FOR_STATISTICS])
            if sum(len(one) for one in rows) >= _FOR_STATISTICS:
                break
        if not rows:
            raise ValueError(
                f"{sidecars.store.url} has no embeddings of these data: make them with `unclip embed`"
            )
        return torch.from_numpy(np.concatenate(rows)[:_FOR_STATISTICS]).float().to(self.device)

    def join(self, sidecars: Sidecars) -> None:
        """Let every sample have a row of these sidecars: training samples without one are replaced, and counted.

        Held-out ones are left out. Raises `SidecarError` where none of these is left.
        """
        self.faults.merge(sidecars.faults.counts, sidecars.faults.names)
        sidecars.faults = self.faults
        self._joined[sidecars.kind] = sidecars
        if self._subset is None:
            return
        places = self._units_of(self._subset.tolist())
        kept = np.zeros(len(self._subset), dtype=bool)
        for unit in np.unique(places):
            here = np.flatnonzero(places == unit)
            keys, start = self.dataset.keys(int(unit)), self.dataset.units[int(unit)].start
            wanted = [keys[int(item) - start] for item in self._subset[here]]
            kept[here] = self._rows(sidecars.kind, self._subset[here].tolist(), wanted)[1]
        self._subset = self._subset[kept]
        if not len(self._subset):
            raise SidecarError(
                f"{sidecars.store.url} has no {sidecars.kind} row of any picture to validate on: make them for all data"
            )

    def pass_over_pictures(self) -> None:
        """Decode no pictures from now on, for tasks that read rows of sidecars in their place."""
        self.reader.close()
        self.reader = Reader(self.dataset, 0, workers=self.reader.workers, faults=self.faults)
        self._kept.clear()

    def rows(
        self, embeddings: Float[Tensor, "n d"], indices: Int64[np.ndarray, " b"]
    ) -> Float[Tensor, "b d"]:
        """The embeddings of some samples, from the sidecars, joined by key."""
        return torch.from_numpy(self.joined(IMAGE, indices)).float().to(self.device)

    def joined(self, kind: str, indices: Int64[np.ndarray, " b"]) -> Float16[np.ndarray, "b ..."]:
        """The rows of one kind of some samples, joined by key."""
        keys = [sample.key for sample, _ in self._get(indices)]
        items = np.asarray(indices) if self._subset is None else self._subset[np.asarray(indices)]
        return np.ascontiguousarray(self._rows(kind, items.tolist(), keys)[0])

    def _rows(
        self, kind: str, items: list[int], keys: list[str]
    ) -> tuple[Float16[np.ndarray, "b ..."], np.ndarray]:
        names = [self.dataset.units[int(place)].name for place in self._units_of(items)]
        return self._joined[kind].rows(names, keys)

    def _units_of(self, items: list[int]) -> Int64[np.ndarray, " b"]:
        starts = self.dataset.units.starts  # pyright: ignore[reportAttributeAccessIssue]
        return np.searchsorted(starts, items, side="right") - 1

    def spread(self, count: int, part: int) -> Iterator[Int64[np.ndarray, " _"]]:
        """Indices of pictures that can be used: the first of the order, or, of what is validated on, evenly spread."""
        if self._subset is not None:
            yield from super().spread(count, part)
            return
        most = min(count, len(self))
        for start in range(0, most, part):
            yield self.indices(np.arange(start, min(start + part, most)))


class _View:
    """What tasks read of decoded data, for data that are not."""

    def __init__(self, source: StreamedSource):
        self._source, self.size = source, source.size
        self.samples = self

    def __getitem__(self, index: int | np.integer) -> Sample:
        return self._source._get([int(index)])[0][0]

    def __len__(self) -> int:
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        raise ValueError(
            f"this stage keeps something of every sample ({name}), which streamed data do not allow: set "
            "data.reading=decoded"
        )
