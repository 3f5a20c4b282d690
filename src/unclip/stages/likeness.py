"""Likeness of pictures."""

import math

from jaxtyping import Float
from torch import Tensor


def psnr(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], at most 100."""
    error = (a - b).double().square().mean().item()
    return min(100.0, 10 * math.log10(4 / error)) if error > 0 else 100.0
