"""Which embedding space a CLIP gives: a name where it has one, and a sketch of its weights that rounding leaves as it is.

CLIPs of one width are easily taken for each other: OpenAI's ViT-L/14 and OpenCLIP's both give 768 numbers that mean
nothing to each other's priors and decoders.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.checkpoints.manifest import Space

OPENAI_L = "OpenAI CLIP ViT-L/14"
OPENCLIP_BIG_G = "OpenCLIP ViT-bigG/14"
PROJECTION = "text.project.weight"
"""The weight of a CLIP that is sketched: every CLIP has it, whichever towers are there."""

COEFFICIENTS = 8
APART = 0.1
"""Sketches that differ by more, as the root of the mean square, are of different weights; int8 moves them by 0.006."""


def sketch(projection: Float[Tensor, "d w"]) -> tuple[float, ...]:
    """Eight numbers of unit variance for a CLIP's text projection.

    They are its products with cosines of frequencies that have no common period: those of weights that were stored in 16
    or 8 bits are nearly the same, those of other weights are as far apart as random numbers.
    """
    flat = projection.detach().double().cpu().flatten()
    index = torch.arange(len(flat), dtype=torch.float64)
    frequencies = [math.pi * math.sqrt(2 + k) % 1 * math.pi for k in range(COEFFICIENTS)]
    products = [float(flat @ torch.cos(frequency * index)) for frequency in frequencies]
    scale = math.sqrt(2) / max(float(flat.norm()), 1e-30)
    return tuple(round(scale * product, 4) for product in products)


def differ(one: Space, other: Space) -> bool:
    """Whether two spaces are known to be different: by their sketches, else by their names."""
    if one.sketch and other.sketch:
        squares = [(a - b) ** 2 for a, b in zip(one.sketch, other.sketch, strict=True)]
        return math.sqrt(sum(squares) / len(squares)) > APART
    return bool(one.name and other.name) and one.name != other.name


def describe(space: Space) -> str:
    """A space for messages: its name, and the beginning of its sketch."""
    mark = "sketch " + " ".join(f"{value:+.2f}" for value in space.sketch[:3]) if space.sketch else ""
    return " ".join(filter(None, [space.name or "a space without a name", mark and f"({mark})"]))
