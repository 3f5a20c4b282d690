"""Splits of a data set, decoded once and kept in memory at one size."""

import logging
from pathlib import Path

from unclip.data.dataset import BadSamples, open_dataset
from unclip.data.decoded_cache import DecodedCache

logger = logging.getLogger(__name__)


class Splits:
    """Decoded splits of the data set `data`, at `size` pixels a side; decoded pictures are kept in the folder `cache`.

    A share of `bad_share` of a split's samples may be bad: they are passed over, and a log message counts and names them.
    """

    def __init__(self, data: str, size: int, cache: Path | None = None, *, bad_share: float = 0.01):
        self.data, self.size, self.cache, self.bad_share = data, size, cache, bad_share
        self.fingerprints: dict[str, str] = {}
        self._decoded: dict[str, DecodedCache] = {}

    def __getitem__(self, split: str) -> DecodedCache:
        """Drawings of a split, decoded when first used."""
        if split not in self._decoded:
            bad = BadSamples(self.bad_share, option="--set bad_share")
            dataset = open_dataset(self.data, split, bad)
            self.fingerprints[split] = dataset.fingerprint
            self._decoded[split] = DecodedCache.load(dataset, self.size, self.cache, bad=bad)
            if passed_over := bad.report():
                logger.warning(f"{self.data}, {split}: skipped {passed_over}")
        return self._decoded[split]
