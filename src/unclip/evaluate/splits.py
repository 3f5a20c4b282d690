"""Splits of a data set, decoded once and kept in memory at one size."""

from pathlib import Path

from unclip.data.dataset import BadSamples, open_dataset
from unclip.data.decoded_cache import DecodedCache


class Splits:
    """Decoded splits of the data set `data`, at `size` pixels a side; decoded pictures are kept in the folder `cache`."""

    def __init__(self, data: str, size: int, cache: Path | None = None):
        self.data, self.size, self.cache = data, size, cache
        self.fingerprints: dict[str, str] = {}
        self._decoded: dict[str, DecodedCache] = {}

    def __getitem__(self, split: str) -> DecodedCache:
        """Drawings of a split, decoded when first used."""
        if split not in self._decoded:
            bad = BadSamples()
            dataset = open_dataset(self.data, split, bad)
            self.fingerprints[split] = dataset.fingerprint
            self._decoded[split] = DecodedCache.load(dataset, self.size, self.cache, bad=bad)
        return self._decoded[split]
