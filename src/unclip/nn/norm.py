"""Normalisation of feature maps: groups of channels, or the root mean square of each pixel."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

NormKind = Literal["group", "rms"]


class PixelRmsNorm(nn.Module):
    """Divide each pixel of `b c h w` maps by the root mean square of its channels, then scale each channel.

    A pixel does not see its neighbours (unlike in group normalisation), so a net of convolutions gives the same
    answer on a tile as on the whole picture, and statistics learned on crops hold at full size. In memory format
    `channels_last` the channels of a pixel are contiguous, and this is one pass over memory.
    """

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        scale = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
        scale = torch.rsqrt(scale.square() / x.shape[1] + self.eps)
        return x * scale.to(x.dtype) * self.weight.to(x.dtype)[:, None, None]


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He 2018) that keeps the type of its input and computes in float32 for half types."""

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        weight, bias = self.weight, self.bias
        if input.device.type != "cpu":
            weight, bias = weight.to(input.dtype), bias.to(input.dtype)
        if not torch.is_autocast_enabled(input.device.type):
            return F.group_norm(input, self.num_groups, weight, bias, self.eps)
        with torch.autocast(input.device.type, enabled=False):
            return F.group_norm(input, self.num_groups, weight, bias, self.eps)


def normalization(kind: NormKind, channels: int, groups: int = 32, *, eps: float = 1e-5) -> nn.Module:
    """The norm called `kind` for `channels` channels; `groups` and `eps` belong to "group".

    Raises ValueError where `groups` does not divide `channels`.
    """
    if kind == "rms":
        return PixelRmsNorm(channels)
    if channels % groups:
        raise ValueError(
            f"{channels} channels do not split into {groups} norm groups; choose a divisor of {channels}"
        )
    return GroupNorm(groups, channels, eps=eps)
