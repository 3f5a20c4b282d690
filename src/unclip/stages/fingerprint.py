"""Comparison of fingerprints (`unclip.stages.space.fingerprint_of`) of weights. Imports no torch."""

import math
from collections.abc import Sequence

APART = 0.1
"""Root mean square difference above which two fingerprints are of different weights; int8 storage moves one by 0.006."""


def are_apart(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two fingerprints are of different weights; False where one is empty, as that is unknown."""
    if not (one and other):
        return False
    squares = [(a - b) ** 2 for a, b in zip(one, other, strict=True)]
    return math.sqrt(sum(squares) / len(squares)) > APART
