"""Blocks of autoencoders: residual blocks without time and attention with one head, between norms that may be guided.

A guided norm is called (map, guide) and sees the latent besides the map, as MoVQ's decoder does; others see the map alone.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.nn.dropout import SampleDropout
from unclip.nn.norm import normalization
from unclip.nn.resample import double

MakeNorm = Callable[[int], nn.Module]
"""Maker of the norm of so many channels."""


def group_norm(groups: int) -> MakeNorm:
    """Group norms with latent diffusion's epsilon, 1e-6."""

    def make(channels: int) -> nn.Module:
        return normalization("group", channels, groups, eps=1e-6)

    return make


def normed(norm: nn.Module, x: Tensor, guide: Tensor | None) -> Tensor:
    """A norm of a map, guided where there is a guide."""
    return norm(x) if guide is None else norm(x, guide)


def exact(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 convolution in float32 whatever the network computes in: bfloat16 has steps of half a level of a picture."""
    with torch.autocast(x.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return F.conv2d(x.float(), layer.weight.float(), bias, padding=1)


class MapResBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, dropout, conv, and the input added again."""

    def __init__(self, in_channels: int, out_channels: int, norm: MakeNorm, *, dropout: float = 0.0):
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels)
        self.dropout = SampleDropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], guide: Float[Tensor, "b z i j"] | None = None
    ) -> Float[Tensor, "b c_out h w"]:
        """(b, c, h, w) -> (b, c_out, h, w)."""
        h = self.conv1(F.silu(normed(self.norm1, x, guide)))
        h = self.conv2(self.dropout(F.silu(normed(self.norm2, h, guide))))
        return self.skip(x) + h


class MapAttention(nn.Module):
    """Self-attention over the pixels of a map with one head as wide as its channels, added to the input."""

    def __init__(self, channels: int, norm: MakeNorm):
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(
        self, x: Float[Tensor, "b c h w"], guide: Float[Tensor, "b z i j"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """(b, c, h, w) -> (b, c, h, w)."""
        height, width = x.shape[-2:]
        pixels = rearrange(normed(self.norm, x, guide), "b c h w -> b (h w) c").contiguous()
        q, k, v = rearrange(self.qkv(pixels), "b n (three c) -> three b 1 n c", three=3).unbind(0)
        attended = self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b 1 n c -> b n c"))
        return x + rearrange(attended, "b (h w) c -> b c h w", h=height, w=width)


class PaddedDownsample(nn.Module):
    """A strided 3x3 convolution that pads at the right and the bottom alone: h x w -> h//2 x w//2."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h//2 w//2"]:
        """(b, c, h, w) -> (b, c, h // 2, w // 2)."""
        return self.convolution(F.pad(x, (0, 1, 0, 1)))


class MapMiddle(nn.Module):
    """Residual block, attention where asked for, residual block."""

    def __init__(self, channels: int, norm: MakeNorm, *, attention: bool = True):
        super().__init__()
        self.resblock1 = MapResBlock(channels, channels, norm)
        self.attention = MapAttention(channels, norm) if attention else None
        self.resblock2 = MapResBlock(channels, channels, norm)

    def forward(
        self, x: Float[Tensor, "b c h w"], guide: Float[Tensor, "b z i j"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """(b, c, h, w) -> (b, c, h, w)."""
        h = self.resblock1(x, guide)
        if self.attention is not None:
            h = self.attention(h, guide)
        return self.resblock2(h, guide)


class MapUpsample(nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution: h x w -> 2h x 2w."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
        """(b, c, h, w) -> (b, c, 2 h, 2 w)."""
        return self.convolution(double(x))


class MapLevel(nn.Module):
    """The residual blocks of one resolution, their attentions, and the change of size."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        blocks: int,
        norm: MakeNorm,
        *,
        attention: bool,
        resample: nn.Module | None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.resblocks = nn.ModuleList(
            MapResBlock(channels if index else in_channels, channels, norm, dropout=dropout)
            for index in range(blocks)
        )
        self.attentions = nn.ModuleList(
            MapAttention(channels, norm) for _ in range(blocks if attention else 0)
        )
        self.resample = resample

    def forward(
        self, x: Float[Tensor, "b c h w"], guide: Float[Tensor, "b z i j"] | None = None
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        """(b, c, h, w) -> (b, c_out, h, w), or of another size with `resample`."""
        for index, resblock in enumerate(self.resblocks):
            x = resblock(x, guide)
            if self.attentions:
                x = self.attentions[index](x, guide)
        return x if self.resample is None else self.resample(x)


class MapEncoder(nn.Module):
    """Pictures to maps: levels that halve the picture, a middle, and `out_channels` channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: tuple[int, ...],
        blocks: int,
        norm: MakeNorm,
        *,
        attention_levels: tuple[int, ...] = (),
        middle_attention: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.entrance = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            self.down.append(
                MapLevel(
                    widths[max(level - 1, 0)],
                    width,
                    blocks,
                    norm,
                    attention=level in attention_levels,
                    resample=None if last else PaddedDownsample(width),
                    dropout=dropout,
                )
            )
        self.middle = MapMiddle(widths[-1], norm, attention=middle_attention)
        self.exit_norm = norm(widths[-1])
        self.exit = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k i j"]:
        """Pictures of any size -> maps, smaller by 2 to the number of levels less 1."""
        x = self.entrance(x)
        for level in self.down:
            x = level(x)
        return exact(self.exit, F.silu(self.exit_norm(self.middle(x))))


class MapDecoder(nn.Module):
    """Maps to pictures: a middle, levels that double the map from the last of `widths` to the first, and an exit."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: tuple[int, ...],
        blocks: int,
        norm: MakeNorm,
        *,
        attention_levels: tuple[int, ...] = (),
        middle_attention: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.entrance = nn.Conv2d(in_channels, widths[-1], 3, padding=1)
        self.middle = MapMiddle(widths[-1], norm, attention=middle_attention)
        self.up = nn.ModuleList()
        current = widths[-1]
        for level in reversed(range(len(widths))):
            self.up.append(
                MapLevel(
                    current,
                    widths[level],
                    blocks,
                    norm,
                    attention=level in attention_levels,
                    resample=MapUpsample(widths[level]) if level else None,
                    dropout=dropout,
                )
            )
            current = widths[level]
        self.exit_norm = norm(widths[0])
        self.exit = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    @property
    def last(self) -> Tensor:
        """The weight of the last convolution, at which adversarial losses are balanced."""
        return self.exit.weight

    def forward(
        self, z: Float[Tensor, "b k i j"], guide: Float[Tensor, "b g i j"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Maps -> pictures; `guide` is what guided norms see."""
        x = self.middle(self.entrance(z), guide)
        for level in self.up:
            x = level(x, guide)
        return exact(self.exit, F.silu(normed(self.exit_norm, x, guide)))
