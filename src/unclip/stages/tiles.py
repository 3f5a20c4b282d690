"""Overlapping tiles of a latent, decoded one at a time and blended: memory is bounded by the tile.

The result is near the whole's and not equal: group norms see the tile, and attention ends at its border.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

OVERLAP = 4
"""A tile shares a quarter of its side with each neighbour."""


def count(height: int, width: int, tile: int) -> int:
    """Number of tiles of `tile` elements a side that a latent is decoded in."""
    return len(_starts(height, tile)) * len(_starts(width, tile))


def in_tiles(
    decode: Callable[[Tensor], Tensor],
    z: Float[Tensor, "b c h w"],
    tile: int,
    factor: int,
    finished: Callable[[], object] = lambda: None,
) -> Float[Tensor, "b 3 hh ww"]:
    """`decode(z)` in tiles of `tile` latent elements a side, each made `factor` times as large.

    Neighbours are blended linearly over what they share. `finished` is called after each tile.
    """
    height, width = z.shape[-2:]
    if max(height, width) <= tile:
        whole = decode(z)
        finished()
        return whole
    result = weight = None
    for top in _starts(height, tile):
        for left in _starts(width, tile):
            if result is not None:
                finished()
            part = decode(z[..., top : top + tile, left : left + tile])
            if result is None or weight is None:
                result = part.new_zeros(*part.shape[:2], height * factor, width * factor)
                weight = part.new_zeros(1, 1, height * factor, width * factor)
            share = _share(part.shape[-2], tile * factor, part)[:, None] * _share(
                part.shape[-1], tile * factor, part
            )
            rows = slice(top * factor, top * factor + part.shape[-2])
            columns = slice(left * factor, left * factor + part.shape[-1])
            result[..., rows, columns] += part * share
            weight[..., rows, columns] += share
    assert result is not None
    assert weight is not None
    finished()
    return result / weight


def _starts(length: int, tile: int) -> list[int]:
    """First elements of the tiles along an axis; the last tile ends with the axis."""
    step = max(1, tile - tile // OVERLAP)
    starts = list(range(0, max(length - tile, 0) + 1, step))
    return starts if starts[-1] + tile >= length else [*starts, length - tile]


def _share(length: int, tile: int, like: Tensor) -> Float[Tensor, " n"]:
    """Weight of each pixel of a tile: rising from its border over the shared part."""
    ramp = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
    edge = torch.minimum(ramp, ramp.flip(0))
    return (edge / max(1, tile // OVERLAP)).clamp(max=1)
