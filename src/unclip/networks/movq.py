"""MoVQ: Kandinsky's autoencoder, whose decoder normalises by the latents (Zheng et al. 2022, arXiv 2209.09002).

Pictures are reduced eight times to latents of 4 channels. A codebook belongs to the network, but Kandinsky decodes latents
as they are, without looking up their nearest codes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.nn.norm import GroupNorm
from unclip.nn.resample import Upsample

EPS = 1e-6
"""Of all norms, in place of the U-Nets' 1e-5."""
GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class MovqConfig:
    """Shape of a `Movq`.

    `widths` are the channels of each level, the finest first; the picture is halved between levels. `blocks` counts the
    residual blocks of a level of the encoder; the decoder has one more. `attention_levels` are indices into `widths`.
    """

    kind: Literal["movq"] = "movq"
    channels: int = 4
    """Channels of the latents."""
    widths: tuple[int, ...] = (128, 256, 256, 512)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (3,)
    codes: int = 16384
    size: int = 32
    """Side of the pictures that it was trained on; it reads any that are a multiple of `factor`."""

    def __post_init__(self) -> None:
        """Raise ValueError for levels that do not exist and for widths that do not split into groups."""
        for width in self.widths:
            if width % GROUPS:
                raise ValueError(f"widths holds {width}, which is no multiple of {GROUPS} norm groups")
        for level in self.attention_levels:
            if not 0 <= level < len(self.widths):
                raise ValueError(
                    f"attention_levels names level {level}; the levels are 0 to {len(self.widths) - 1}"
                )

    @property
    def factor(self) -> int:
        """Pixels per latent along each side."""
        return 2 ** (len(self.widths) - 1)


class PlainNorm(nn.Module):
    """Group normalisation; it takes the latents as `SpatialNorm` does, and leaves them."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = GroupNorm(GROUPS, channels, eps=EPS)

    def forward(
        self, x: Float[Tensor, "b c h w"], latents: Float[Tensor, "b k lh lw"] | None
    ) -> Float[Tensor, "b c h w"]:
        """Normalised maps."""
        return self.norm(x)


class SpatialNorm(nn.Module):
    """Group normalisation, then a scale and a shift of each pixel from the latent that it lies in (equation 5)."""

    def __init__(self, channels: int, latents: int):
        super().__init__()
        self.norm = GroupNorm(GROUPS, channels, eps=EPS)
        self.scale = nn.Conv2d(latents, channels, 1)
        self.shift = nn.Conv2d(latents, channels, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], latents: Float[Tensor, "b k lh lw"] | None
    ) -> Float[Tensor, "b c h w"]:
        """Normalised maps of a size that is a multiple of the latents'.

        A convolution of single pixels commutes with repeating them, so it runs at the latents' size.
        """
        if latents is None:
            raise ValueError("a spatial norm needs the latents")
        rows, columns = (side // small for side, small in zip(x.shape[-2:], latents.shape[-2:]))
        blocks = rearrange(self.norm(x), "b c (h r) (w s) -> b c h r w s", r=rows, s=columns)
        scale, shift = (
            rearrange(layer(latents), "b c h w -> b c h 1 w 1") for layer in (self.scale, self.shift)
        )
        # In place, as maps of a large picture are hundreds of megabytes.
        moved = blocks * scale + shift if torch.is_grad_enabled() else blocks.mul_(scale).add_(shift)
        return rearrange(moved, "b c h r w s -> b c (h r) (w s)")


def _norm(channels: int, latents: int | None) -> PlainNorm | SpatialNorm:
    """Norm of the encoder (`latents` None), or of the decoder over so many channels of latents."""
    return PlainNorm(channels) if latents is None else SpatialNorm(channels, latents)


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=not torch.is_grad_enabled())


class Residual(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv, and the input added again."""

    def __init__(self, in_channels: int, out_channels: int, latents: int | None):
        super().__init__()
        self.norm1 = _norm(in_channels, latents)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels, latents)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], latents: Float[Tensor, "b k lh lw"] | None
    ) -> Float[Tensor, "b c_out h w"]:
        """Maps of the same size."""
        h = self.conv1(_silu(self.norm1(x, latents)))
        h = self.conv2(_silu(self.norm2(h, latents)))
        return h + self.skip(x)


class OneHeadAttention(nn.Module):
    """Self-attention of all pixels, in one head over all channels; the input is added."""

    def __init__(self, channels: int, latents: int | None):
        super().__init__()
        self.norm = _norm(channels, latents)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(
        self, x: Float[Tensor, "b c h w"], latents: Float[Tensor, "b k lh lw"] | None
    ) -> Float[Tensor, "b c h w"]:
        """Maps of the same size."""
        height, width = x.shape[-2:]
        pixels = rearrange(self.norm(x, latents), "b c h w -> b (h w) c").contiguous()
        q, k, v = rearrange(self.qkv(pixels), "b n (three c) -> three b 1 n c", three=3).unbind(0)
        attended = self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + rearrange(attended, "b (h w) c -> b c h w", h=height, w=width)


class HalvingConvolution(nn.Module):
    """A strided 3x3 convolution, padded at the right and the bottom only: h x w -> h/2 x w/2."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h/2 w/2"]:
        """Maps of half the size."""
        return self.convolution(F.pad(x, (0, 1, 0, 1)))


class MovqLevel(nn.Module):
    """The blocks of one resolution: residual blocks, each with its attention if the level has any, and the resampling."""

    def __init__(
        self,
        widths: list[int],
        channels: int,
        latents: int | None,
        *,
        attends: bool,
        resample: nn.Module | None,
    ):
        super().__init__()
        self.resblocks = nn.ModuleList(Residual(width, channels, latents) for width in widths)
        self.attentions = nn.ModuleList(OneHeadAttention(channels, latents) for _ in widths if attends)
        self.resample = resample

    def forward(
        self, x: Float[Tensor, "b c h w"], latents: Float[Tensor, "b k lh lw"] | None
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        """Maps after the level."""
        for index, block in enumerate(self.resblocks):
            x = block(x, latents)
            if self.attentions:
                x = self.attentions[index](x, latents)
        return x if self.resample is None else self.resample(x)


class MovqMiddle(nn.Module):
    """Residual block, attention, residual block, at the coarsest resolution."""

    def __init__(self, channels: int, latents: int | None):
        super().__init__()
        self.resblock1 = Residual(channels, channels, latents)
        self.attention = OneHeadAttention(channels, latents)
        self.resblock2 = Residual(channels, channels, latents)

    def forward(
        self, x: Float[Tensor, "b c h w"], latents: Float[Tensor, "b k lh lw"] | None
    ) -> Float[Tensor, "b c h w"]:
        """Maps of the same size."""
        return self.resblock2(self.attention(self.resblock1(x, latents), latents), latents)


class MovqEncoder(nn.Module):
    """Pictures to maps of as many channels as the latents have."""

    def __init__(self, config: MovqConfig):
        super().__init__()
        widths = config.widths
        self.entrance = nn.Conv2d(3, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            MovqLevel(
                [widths[max(level - 1, 0)], *[width] * (config.blocks - 1)],
                width,
                None,
                attends=level in config.attention_levels,
                resample=HalvingConvolution(width) if level < len(widths) - 1 else None,
            )
            for level, width in enumerate(widths)
        )
        self.middle = MovqMiddle(widths[-1], None)
        self.exit_norm = PlainNorm(widths[-1])
        self.exit = nn.Conv2d(widths[-1], config.channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k lh lw"]:
        """Maps of pictures in [-1, 1]."""
        x = self.entrance(x)
        for level in self.levels:
            x = level(x, None)
        return self.exit(_silu(self.exit_norm(self.middle(x, None), None)))


class MovqDecoder(nn.Module):
    """Maps of as many channels as the latents have to pictures, under the latents."""

    def __init__(self, config: MovqConfig):
        super().__init__()
        widths, latents = config.widths, config.channels
        self.entrance = nn.Conv2d(latents, widths[-1], 3, padding=1)
        self.middle = MovqMiddle(widths[-1], latents)
        self.levels = nn.ModuleList(
            MovqLevel(
                [widths[min(level + 1, len(widths) - 1)], *[widths[level]] * config.blocks],
                widths[level],
                latents,
                attends=level in config.attention_levels,
                resample=Upsample(widths[level]) if level else None,
            )
            for level in reversed(range(len(widths)))
        )
        self.exit_norm = SpatialNorm(widths[0], latents)
        self.exit = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "b k lh lw"], latents: Float[Tensor, "b k lh lw"]
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures, not clamped."""
        x = self.middle(self.entrance(x), latents)
        for level in self.levels:
            x = level(x, latents)
        return self.exit(_silu(self.exit_norm(x, latents)))


class Movq(nn.Module):
    """`config` as a network: `encode` and `decode`. Both compute in the type of their weights."""

    def __init__(self, config: MovqConfig):
        super().__init__()
        self.config = config
        channels = config.channels
        self.encoder = MovqEncoder(config)
        self.to_latents = nn.Conv2d(channels, channels, 1)
        self.codes = nn.Embedding(config.codes, channels)
        self.from_latents = nn.Conv2d(channels, channels, 1)
        self.decoder = MovqDecoder(config)

    def encode(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k lh lw"]:
        """Latents of pictures in [-1, 1], float32; the same at every call.

        Raises ValueError for a picture whose sides are no multiples of `config.factor`.
        """
        factor, (height, width) = self.config.factor, pixels.shape[-2:]
        if height % factor or width % factor:
            raise ValueError(
                f"a picture of {height}x{width} does not fit; both sides must be multiples of {factor}"
            )
        return self.to_latents(self.encoder(pixels.to(self.to_latents.weight.dtype))).float()

    def decode(self, latents: Float[Tensor, "b k lh lw"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures of latents, float32, about [-1, 1] and not clamped."""
        latents = latents.to(self.from_latents.weight.dtype)
        return self.decoder(self.from_latents(latents), latents).float()
