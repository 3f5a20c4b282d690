"""Halving and doubling of feature maps, and folding of pixel blocks into channels."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def halve(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h/2 w/2"]:
    """The mean of each 2x2 block."""
    return F.avg_pool2d(x, 2)


def double(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
    """Each pixel repeated as a 2x2 block (nearest neighbour)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Downsample(nn.Module):
    """A strided 3x3 convolution: h x w -> h/2 x w/2, rounded up."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c (h+1)//2 (w+1)//2"]:
        return self.convolution(x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution: h x w -> 2h x 2w."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "b c h w"], size: torch.Size | None = None
    ) -> Float[Tensor, "b c h_out w_out"]:
        """(b, c, 2 h, 2 w), or of another `size` where the map came from one with odd sides."""
        if size is None or size == (2 * x.shape[-2], 2 * x.shape[-1]):
            return self.convolution(double(x))
        return self.convolution(F.interpolate(x, size=size, mode="nearest"))


def space_to_depth(
    x: Float[Tensor, "b c h w"], patch: int
) -> Float[Tensor, "b c*{patch}*{patch} h/{patch} w/{patch}"]:
    """Fold each `patch` x `patch` block of pixels into channels; nothing is lost."""
    return x if patch == 1 else F.pixel_unshuffle(x, patch)


def depth_to_space(x: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b c_out h*{patch} w*{patch}"]:
    """The inverse of `space_to_depth`."""
    return x if patch == 1 else F.pixel_shuffle(x, patch)
