"""Cascade of upsamplers: which of them lead from one size to another, by their configs alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unclip.errors import RequestError, Unsupported
from unclip.images.files import MAX_PIXELS
from unclip.networks.glide import GlideUpsamplerConfig
from unclip.networks.upsampler import UpsamplerConfig

TILE = 256
"""Side of the tiles in which a large picture is computed, in elements of the network: pixels, or patches where it has them."""


@dataclass(frozen=True)
class Link:
    """One upsampler of a model: its position in running order, its part's name and its config."""

    index: int
    name: str
    config: UpsamplerConfig | GlideUpsamplerConfig

    @property
    def tile(self) -> int | None:
        """Side of the tiles of a large picture; None for a network that attends to the whole picture."""
        net = self.config.net
        return None if net.attention_levels else TILE * net.patch


def sizes(start: int, cascade: Sequence[Link]) -> list[int]:
    """Sides of the pictures that a decoder of `start` pixels and these upsamplers make, ascending."""
    found = [start]
    for link in cascade:
        if link.config.low_size == found[-1]:
            found.append(link.config.high_size)
    return found


def route(start: int, size: int, cascade: Sequence[Link]) -> list[Link]:
    """The upsamplers that lead from pictures of `start` pixels to ones of `size`."""
    found = []
    for link in cascade:
        if start < size and link.config.low_size == start:
            found.append(link)
            start = link.config.high_size
    return found


def plan_enlargement(
    cascade: Sequence[Link], width: int, height: int, size: int | None
) -> tuple[list[Link], tuple[int, int]]:
    """The upsamplers that enlarge a picture to a longer side of `size`, and the resulting width and height.

    The first is the one made for pictures of such a size: the last whose low size is not longer. `size` None runs it
    alone; where it and those after it do not reach `size`, an earlier one begins. Raises `Unsupported` where the model
    has no upsampler, `RequestError` for sizes that are no enlargement, beyond reach, or too large.
    """
    longer = max(width, height)
    if not cascade:
        raise Unsupported("the model has no upsampler: it cannot enlarge pictures")
    begin = max((link.index for link in cascade if link.config.low_size <= longer), default=0)
    while begin > 0 and size is not None and longer * _factor(cascade[begin:]) < size:
        begin -= 1
    end = begin + 1
    while end < len(cascade) and longer * _factor(cascade[begin:end]) < (size or 0):
        end += 1
    found, most = list(cascade[begin:end]), longer * _factor(cascade)
    factor = _factor(found)
    size = longer * factor if size is None else size
    if not longer < size <= longer * factor:
        raise RequestError(
            f"a picture of {width}x{height} can be enlarged to a longer side of {longer + 1} to {most} pixels, not {size}"
        )
    if width * height * factor**2 > MAX_PIXELS:
        raise RequestError(
            f"{width}x{height} times {factor} has more than {MAX_PIXELS / 1e6:g} megapixels: give a smaller picture"
        )
    scale = size / longer
    return found, (max(1, round(width * scale)), max(1, round(height * scale)))


def _factor(links: Sequence[Link]) -> int:
    return math.prod(link.config.factor for link in links)


def padded(
    pixels: Float[Tensor, "b c h w"], config: UpsamplerConfig | GlideUpsamplerConfig
) -> tuple[Float[Tensor, "b c hh ww"], tuple[int, int]]:
    """Pictures padded by their last pixels to sides that the network can divide, and the enlarged height and width."""
    step = config.net.divisor // math.gcd(config.net.divisor, config.factor)
    height, width = pixels.shape[-2:]
    grown = F.pad(pixels, (0, -width % step, 0, -height % step), mode="replicate")
    return grown, (height * config.factor, width * config.factor)
