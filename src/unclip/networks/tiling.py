"""Tiled evaluation of a U-Net without attention: bounded memory for pictures of any size, and the same result."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from unclip.networks.unet import Unet, UnetConfig


def reach(config: UnetConfig) -> int:
    """How far, in pixels, an output of the net's convolutions may lie from an input that it depends on.

    The sum of the radii of all 3x3 convolutions on the longest way through the net, and one coarsest pixel for the
    blocks that pooling makes.
    """
    units = [config.patch * 2**level for level in range(len(config.multiples))]
    total = 2 * units[0]  # entrance and exit
    total += sum(
        2 * (2 * config.blocks + 1) * unit for unit in units
    )  # two convolutions a block, down and up
    total += 4 * units[-1]  # the middle
    for fine, coarse in pairwise(units):
        total += 2 * coarse + 2 * fine if config.resample == "resblock" else 2 * fine
    return total + units[-1]


class TiledUnet(nn.Module):
    """`net` on tiles of `tile` pixels a side, each seen with as much around it as its pixels depend on.

    The result is the whole picture's to rounding if the net's norm is "rms"; a group norm's statistics are the tile's.
    Raises ValueError for a net with attention, where every pixel depends on all.
    """

    def __init__(self, net: Unet, tile: int):
        super().__init__()
        if net.config.attention_levels:
            raise ValueError("a net with attention cannot be run in tiles: each pixel depends on the whole")
        divisor = net.config.divisor
        self.net = net
        self.tile = -(-tile // divisor) * divisor
        self.halo = -(-reach(net.config) // divisor) * divisor

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        label: Float[Tensor, " b"],
        vector: Float[Tensor, "b e"] | None = None,
    ) -> Float[Tensor, "b c_out h w"]:
        """As the net's; a picture that fits into one tile with its surroundings is not cut."""
        height, width = x.shape[-2:]
        if max(height, width) <= self.tile + 2 * self.halo:
            return self.net(x, label, vector)
        result = None
        for top in range(0, height, self.tile):
            for left in range(0, width, self.tile):
                above, before = max(0, top - self.halo), max(0, left - self.halo)
                rows = slice(above, top + self.tile + self.halo)
                columns = slice(before, left + self.tile + self.halo)
                part = self.net(x[..., rows, columns], label, vector)
                if result is None:
                    result = part.new_empty(*part.shape[:2], height, width)
                inner = part[..., top - above :, left - before :][..., : self.tile, : self.tile]
                result[..., top : top + self.tile, left : left + self.tile] = inner
        assert result is not None
        return result
