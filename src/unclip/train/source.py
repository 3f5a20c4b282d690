"""In-memory training data: captioned pictures by sample number, a pure function of seed and number."""

import contextlib
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

from unclip.data.dataset import Dataset, open_dataset
from unclip.data.decoded_cache import Content, DecodedCache
from unclip.data.order import Order
from unclip.data.sample import BadSample, BadSamples, Sample, digest_of
from unclip.data.stream.open import is_only_streamed
from unclip.datasets import derived
from unclip.images import from_uint8
from unclip.rng import Noise, derive
from unclip.tokenizers.clip import ClipTokenizer
from unclip.train.caption_tokens import CaptionTokens, ChosenCaptions
from unclip.train.config import DataConfig, TrainConfig

Part = Literal["train", "validation"]


class SkippedSamples(UserWarning):
    """Unusable samples were skipped."""


class Source:
    """Pictures and captions of one part of the data, and the order in which a run visits them.

    Decoded once and kept, or, where the config says so or the files are large, a `StreamedSource`.
    """

    quick_look: ClassVar[int] = 20_000
    """So many samples' captions are looked at when a run begins."""

    def __new__(cls, config: TrainConfig, part: Part, device: torch.device, *, size: int | None = None):
        """A `StreamedSource` for data that are streamed."""
        if cls is Source and is_streamed(config.data):
            from unclip.train.streamed import StreamedSource

            return object.__new__(StreamedSource)
        return object.__new__(cls)

    def __init__(self, config: TrainConfig, part: Part, device: torch.device, *, size: int | None = None):
        data = config.data
        if not data.path:
            raise ValueError(
                "the config names no data: give --data FOLDER (`unclip data artwork FOLDER` makes one)"
            )
        self.device, self.shift = device, data.shift
        cache = Path(data.cache or Path(config.out).parent / "cache")
        bad = BadSamples(data.bad_share, option="--set data.bad_share")
        dataset, shared = open_part(data, part, bad)
        if size is not None:
            check_resolution(dataset, size)
        self._content = dataset.fingerprint
        self.decoded = _loaded(dataset, size or data.size, cache, bad, device)
        # What both halves of the same data have is said once.
        if bad.report() and not (shared and part == "validation"):
            warnings.warn(f"{data.path}: skipped {bad.report()}", SkippedSamples, stacklevel=2)
        if shared:
            held_out = chosen_by_key([sample.key for sample in self.decoded.samples], data.held_out)
            self.decoded = _rows(self.decoded, held_out if part == "validation" else ~held_out)
        self.order = Order(len(self.decoded), derive(config.seed, "order"), weights_of(self.decoded, data))
        self._tokens: CaptionTokens | None = None
        self._pixels = _in_device_memory(self.decoded, device, self.fingerprint)

    def __len__(self) -> int:
        return len(self.decoded)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the pictures, their order and size, for the names of caches."""
        return digest_of([self._content, self.decoded.size, *(one.key for one in self.decoded.samples)])[:24]

    def contents(self) -> dict[str, Content]:
        """Key -> digests of each picture and its text, in their order: what a run began with."""
        return self.decoded.contents()

    def pictures_between(self, start: int, stop: int) -> Float[Tensor, "b 3 s s"]:
        """Pictures `start` to `stop` in the data set's own order, for passes over all of it."""
        return self.pictures(np.arange(start, stop))

    def indices(self, numbers: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        """Which pictures the samples with these consecutive numbers show."""
        return self.order.indices(int(numbers[0]), int(numbers[-1]) + 1)

    def key(self, number: int) -> str:
        """The key of the picture that sample `number` shows."""
        return self.decoded.samples[int(self.order.indices(number, number + 1)[0])].key

    def pictures(
        self, indices: Int64[np.ndarray, " b"], noise: Noise | None = None
    ) -> Float[Tensor, "b 3 s s"]:
        """Pictures in [-1, 1] on the device, shifted at random where `noise` and the config's `shift` are given."""
        if self._pixels is None:
            pixels = self.decoded.pictures(indices).to(self.device)
        else:
            pixels = self._pixels[on_device(indices, self.device)]
        if noise is not None and self.shift:
            offsets = noise.fork("shift").integers(2 * self.shift + 1, 2) - self.shift
            pixels = shifted(pixels, offsets, self.shift)
        return from_uint8(pixels)

    def squares(
        self, indices: Int64[np.ndarray, " b"], corners: Int64[Tensor, "b 2"], side: int
    ) -> Float[Tensor, "b 3 w w"]:
        """The square of `side` pixels at its corner (down, right) of each picture, in [-1, 1] on the device."""
        if self._pixels is not None:
            return from_uint8(squares_at(self._pixels, on_device(indices, self.device), corners, side))
        return from_uint8(self.decoded.squares(indices, corners, side).to(self.device))

    def captions(self, indices: Int64[np.ndarray, " b"], noise: Noise | None = None) -> list[str]:
        """One caption of each picture: drawn with `noise`, or else its first."""
        samples = [self.decoded.samples[index] for index in indices]
        if noise is None:
            return [sample.captions[0] for sample in samples]
        draws = noise.fork("caption").uniform().tolist()
        return [sample.captions[int(draw * len(sample.captions))] for sample, draw in zip(samples, draws)]

    def read_captions(self, tokenizer: ClipTokenizer) -> None:
        """Tokenise every caption and keep the tokens on the device, for `tokens`."""
        if self._tokens is None:
            kept = (self.fingerprint, tokenizer.to_json(), self.device)
            if self.device.type != "cuda":
                self._tokens = CaptionTokens(self.decoded.samples, tokenizer, self.device)
                return
            if kept not in _TOKENS:
                _TOKENS[kept] = CaptionTokens(self.decoded.samples, tokenizer, self.device)
            self._tokens = _TOKENS[kept]

    @property
    def has_tokens(self) -> bool:
        """Whether `read_captions` was called, so that captions are chosen on the device."""
        return self._tokens is not None

    def tokens(self, indices: Int64[np.ndarray, " b"], noise: Noise) -> ChosenCaptions:
        """The tokens of what `captions` says with the same noise, all on the device, after `read_captions`."""
        assert self._tokens is not None, "read_captions comes first"
        return self._tokens.chosen(on_device(indices, self.device), noise.fork("caption").uniform())

    def pass_over_pictures(self) -> None:
        """Do without pictures from now on; these are decoded already."""

    def spread(self, count: int, part: int) -> Iterator[Int64[np.ndarray, " _"]]:
        """Indices of at most `count` pictures that can be used, evenly spread, at most `part` of them at a time."""
        indices = evenly_spaced(count, len(self))
        yield from np.array_split(indices, -(-len(indices) // part))

    def rows(
        self, embeddings: Float[Tensor, "n d"], indices: Int64[np.ndarray, " b"]
    ) -> Float[Tensor, "b d"]:
        """The embeddings of some samples, of those of all."""
        return embeddings[torch.from_numpy(indices).to(self.device)]

    def augmentations(self, indices: Int64[np.ndarray, " b"], count: int) -> Float[Tensor, "b a"]:
        """The `count` augmentation parameters in a picture's metadata (`augment`); 0 without them.

        Raises ValueError where their number is another.
        """
        found = [self.decoded.samples[index].meta.get("augment") or [0.0] * count for index in indices]
        if other := next((each for each in found if len(each) != count), None):
            raise ValueError(f"the data have {len(other)} augmentation parameters, the decoder reads {count}")
        return torch.tensor(found, device=self.device)

    def all_captions(self) -> list[str]:
        """Every caption of every picture."""
        return [caption for sample in self.decoded.samples for caption in sample.captions]


def open_part(data: DataConfig, part: Part, bad: BadSamples) -> tuple[Dataset, bool]:
    """The data set of `part`, and whether it also holds the other part, so that `chosen_by_key` must separate them.

    Unusable samples are recorded in `bad`.
    """
    if data.path != "shapes" and not _has_splits(Path(data.path)):
        return open_dataset(data.path, bad=bad), True
    if data.validation is None:
        return open_dataset(data.path, data.split, bad), True
    return open_dataset(data.path, data.split if part == "train" else data.validation, bad), False


def check_resolution(dataset: Dataset, size: int) -> None:
    """Raise ValueError where the pictures, by the middle one of a few, are smaller than `size` pixels.

    They would be enlarged, and teach that large pictures are blurred.
    """
    sides = []
    for index in evenly_spaced(9, len(dataset)):
        with contextlib.suppress(BadSample):
            sides.append(min(dataset.picture(int(index), None).shape[1:]))
    if sides and (middle := int(np.median(sides))) < size:
        raise ValueError(
            f"the pictures have {middle} pixels a side, and this stage learns what {size} look like: give larger ones, "
            f"such as `unclip data artwork FOLDER --size {size}` makes"
        )


def is_streamed(data: DataConfig) -> bool:
    """Whether data are read as they are needed: object stores, tables and parquet always, folders where they are large."""
    if data.reading != "auto":
        return data.reading == "streamed"
    if "://" in data.path or data.selection is not None:
        return True
    if is_only_streamed(data.path):
        return True
    total, most = 0, data.decoded_gib * 2**30
    for parent, _, names in os.walk(data.path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(parent, name)).st_size
            if total > most:
                return True
    return False


def is_held_out(key: str, share: float) -> bool:
    """Whether a key is among the `share` that is validated on, by its own hash."""
    return (
        int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        < share * 2**64
    )


def chosen_by_key(keys: list[str], share: float) -> Bool[np.ndarray, " n"]:
    """About a share of the keys: each decided by its own hash, so that further pictures move no other ones.

    At least one is chosen and at least one is left. Raises ValueError for fewer than two keys.
    """
    if len(keys) < 2:
        raise ValueError(
            f"the data set has {len(keys)} usable pictures: give at least 2, as one is held out for validation"
        )
    hashes = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") for key in keys]
    chosen = np.array([value < share * 2**64 for value in hashes])
    chosen[np.argmin(hashes)], chosen[np.argmax(hashes)] = True, False
    return chosen


def _has_splits(path: Path) -> bool:
    """Whether a folder's shards are named NAME-SPLIT-NUMBER.tar."""
    return any(tar.stem.count("-") >= 2 for tar in path.glob("*.tar"))


def _rows(decoded: DecodedCache, chosen: Bool[np.ndarray, " n"]) -> DecodedCache:
    samples = [sample for sample, taken in zip(decoded.samples, chosen) if taken]
    return replace(decoded, rows=decoded.rows[chosen], samples=samples)


# What the stages of a chain on a GPU share, so that each of them begins at once: keyed by what it was made from.
_DECODED: dict[tuple[str, int, str], DecodedCache] = {}
_PIXELS: dict[tuple[str, torch.device], UInt8[Tensor, "n 3 s s"]] = {}
_TOKENS: dict[tuple[str, str, torch.device], CaptionTokens] = {}


def _loaded(dataset: Dataset, size: int, cache: Path, bad: BadSamples, device: torch.device) -> DecodedCache:
    if device.type != "cuda":
        return DecodedCache.load(dataset, size, cache=cache, bad=bad)
    key = (dataset.fingerprint, size, str(cache))
    if key not in _DECODED:
        _DECODED[key] = DecodedCache.load(dataset, size, cache=cache, bad=bad)
    return _DECODED[key]


def _in_device_memory(
    decoded: DecodedCache, device: torch.device, fingerprint: str
) -> UInt8[Tensor, "n 3 s s"] | None:
    """All pictures on a GPU, if they take less than half of its free memory; None: they stay memory-mapped."""
    if device.type != "cuda":
        return None
    if (fingerprint, device) not in _PIXELS:
        if len(decoded) * decoded.data[0].nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return None
        _PIXELS[fingerprint, device] = torch.from_numpy(decoded.data[decoded.rows]).to(device)
    return _PIXELS[fingerprint, device]


def on_device(indices: Int64[np.ndarray, " b"], device: torch.device) -> Int64[Tensor, " b"]:
    """Indices as a tensor; the host does not wait for the copy."""
    host = torch.from_numpy(np.ascontiguousarray(indices))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def squares_at(
    pixels: UInt8[Tensor, "n 3 s s"], which: Int64[Tensor, " b"], corners: Int64[Tensor, "b 2"], side: int
) -> UInt8[Tensor, "b 3 w w"]:
    """The square of `side` pixels at its corner of each of some pictures, gathered on their device."""
    steps = torch.arange(side, device=pixels.device)
    down, right = (corners.to(pixels.device)[:, axis, None] + steps for axis in range(2))
    channels = torch.arange(pixels.shape[1], device=pixels.device)[:, None, None]
    return pixels[which[:, None, None, None], channels, down[:, None, :, None], right[:, None, None, :]]


def weights_of(decoded: DecodedCache, data: DataConfig) -> Float64[np.ndarray, " n"]:
    """The samples' weights, times the factors of their metadata (`DataConfig.factors`)."""
    factors = [
        math.prod(values.get(_value(sample, name), 1.0) for name, values in data.factors.items())
        for sample in decoded.samples
    ]
    return decoded.weights * np.array(factors)


def _value(sample: Sample, name: str) -> str:
    """A field of a sample's metadata as text: "true" and "false" for booleans, "" without one.

    Raises ValueError naming the sample, where the metadata have another type than the field is computed from.
    """
    try:
        value = derived(sample.meta, name)
        return value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise ValueError(f"{sample.key}: its metadata do not tell {name!r} ({error})") from error


def shifted(
    pixels: UInt8[Tensor, "b 3 s s"], offsets: Int64[Tensor, "b 2"], margin: int | None = None
) -> UInt8[Tensor, "b 3 s s"]:
    """Pictures shifted by (down, right) offsets in pixels, filled with white at the edge.

    With `margin`, the largest offset possible, the host does not wait for the device.
    """
    side = torch.arange(pixels.shape[-1], device=pixels.device)
    margin = int(offsets.abs().max()) if margin is None else margin
    padded = torch.nn.functional.pad(pixels, [margin] * 4, value=255)
    rows, columns = ((side + margin - offset[:, None]) for offset in offsets.unbind(1))
    which = torch.arange(len(pixels), device=pixels.device)
    moved = padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return rearrange(moved, "b h w c -> b c h w").contiguous()


def evenly_spaced(count: int, of: int) -> Int64[np.ndarray, " n"]:
    """At most `count` indices, evenly spaced over `of` samples: the same held-out pictures at every validation."""
    return np.unique(np.linspace(0, of - 1, min(count, of)).round().astype(np.int64))
