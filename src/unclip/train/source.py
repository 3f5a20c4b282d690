"""Training data in memory: the sample with a number is a pure function of the seed and that number."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from unclip.data.dataset import open_dataset
from unclip.data.order import Order
from unclip.data.resident import Resident
from unclip.images import from_uint8
from unclip.rng import Noise, derive
from unclip.train.config import TrainConfig


class Source:
    """A split's pictures and captions, and the order in which a run visits them."""

    def __init__(self, config: TrainConfig, split: str, device: torch.device, *, size: int | None = None):
        data = config.data
        if not data.path:
            raise ValueError(
                "the config names no data: give --data FOLDER (`unclip data artwork FOLDER` makes one)"
            )
        self.device, self.shift = device, data.shift
        dataset = open_dataset(data.path, split=split)
        self._fingerprint = f"{dataset.fingerprint[:24]}-{len(dataset)}-{size or data.size}"
        cache = Path(data.cache or Path(config.out).parent / "cache")
        self.resident = Resident.load(dataset, size or data.size, cache=cache)
        self.order = Order(len(self.resident), derive(config.seed, "order"), self.resident.weights)

    def __len__(self) -> int:
        return len(self.resident)

    @property
    def fingerprint(self) -> str:
        """Names the drawings and their size: what is computed from them is kept under it."""
        return self._fingerprint

    def pictures_between(self, start: int, stop: int) -> Float[Tensor, "b 3 s s"]:
        """Pictures `start` to `stop` in the data set's own order, for passes over all of it."""
        return self.pictures(np.arange(start, stop))

    def indices(self, numbers: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        """Which drawings the samples with these consecutive numbers show."""
        return self.order.indices(int(numbers[0]), int(numbers[-1]) + 1)

    def pictures(
        self, indices: Int64[np.ndarray, " b"], noise: Noise | None = None
    ) -> Float[Tensor, "b 3 s s"]:
        """Pictures in [-1, 1] on the device, moved a little where `noise` is given and the config says so."""
        pixels = self.resident.pictures(indices)
        if noise is not None and self.shift:
            offsets = noise.fork("shift").integers(2 * self.shift + 1, 2).cpu() - self.shift
            pixels = shifted(pixels, offsets)
        return from_uint8(pixels.to(self.device, non_blocking=True))

    def captions(self, indices: Int64[np.ndarray, " b"], noise: Noise | None = None) -> list[str]:
        """One caption of each drawing: drawn with `noise`, or else its first."""
        samples = [self.resident.samples[index] for index in indices]
        if noise is None:
            return [sample.captions[0] for sample in samples]
        draws = noise.fork("caption").uniform().tolist()
        return [sample.captions[int(draw * len(sample.captions))] for sample, draw in zip(samples, draws)]

    def all_captions(self) -> list[str]:
        """Every caption of every drawing."""
        return [caption for sample in self.resident.samples for caption in sample.captions]


def shifted(pixels: UInt8[Tensor, "b 3 s s"], offsets: Int64[Tensor, "b 2"]) -> UInt8[Tensor, "b 3 s s"]:
    """Each picture moved by its (down, right) offset in pixels; white comes in at the edge."""
    margin = int(offsets.abs().max())
    size = pixels.shape[-1]
    padded = torch.nn.functional.pad(pixels, [margin] * 4, value=255)
    corners = (margin - offsets).tolist()
    return torch.stack(
        [one[:, top : top + size, left : left + size] for one, (top, left) in zip(padded, corners)]
    )


def spread(count: int, of: int) -> Int64[np.ndarray, " n"]:
    """At most `count` indices, evenly spread over `of` samples: the same held-out drawings at every validation."""
    return np.unique(np.linspace(0, of - 1, min(count, of)).round().astype(np.int64))
