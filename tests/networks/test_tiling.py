"""Tiles: no pixel depends on more than is said, and the tiled answer is the whole picture's."""

import pytest
import torch

from unclip.networks.tiling import TiledUnet, reach
from unclip.networks.unet import Unet, UnetConfig


def config(**more) -> UnetConfig:
    return UnetConfig(
        **{"in_channels": 6, "channels": 8, "multiples": (1, 2), "blocks": 1, "norm": "rms", **more}
    )


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    return network.eval()


@pytest.mark.parametrize(
    "more", [{}, {"resample": "conv"}, {"patch": 2, "multiples": (1, 1, 1)}, {"blocks": 2}]
)
@torch.no_grad()
def test_no_pixel_reaches_further_than_is_said(more):
    net = shaken(Unet(config(**more)))
    side = 2 * reach(net.config) + 16
    side += -side % net.config.divisor
    x = torch.randn(1, 6, net.config.divisor * 4, side)
    label = torch.tensor([0.3])
    before = net(x, label)
    middle = side // 2
    x[..., middle] += 1000
    columns = (net(x, label) != before).any(dim=(0, 1, 2)).nonzero()
    furthest = max(middle - int(columns[0]), int(columns[-1]) - middle)
    assert furthest <= reach(net.config)
    assert furthest > reach(net.config) / 2


@torch.no_grad()
def test_tiles_give_the_whole_picture():
    net = shaken(Unet(config(patch=2)))
    tiled = TiledUnet(net, tile=30)
    assert tiled.tile == 32
    size = tiled.tile + 2 * tiled.halo
    x = torch.randn(2, 6, size + 8, 2 * size)
    label = torch.tensor([0.3, 0.7])
    torch.testing.assert_close(tiled(x, label), net(x, label), rtol=1e-4, atol=1e-4)


def test_attention_cannot_be_tiled():
    net = Unet(config(attention_levels=(1,), head_channels=16, norm="group", groups=8))
    with pytest.raises(ValueError, match="attention"):
        TiledUnet(net, 32)
