"""MoVQ: Kandinsky's autoencoder, whose decoder normalises by the latents (Zheng et al. 2022, arXiv 2209.09002).

Pictures are reduced eight times to latents of 4 channels. A codebook belongs to the network, but Kandinsky decodes latents
as they are, without looking up their nearest codes.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from unclip.nn.map_blocks import MapDecoder, MapEncoder, group_norm
from unclip.nn.norm import normalization

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
    latent_channels: int = 4
    widths: tuple[int, ...] = (128, 256, 256, 512)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (3,)
    codes: int = 16384
    scale: float = 1.0
    """Factor from latents to the state of diffusion."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Statistics of latents by channel, which diffusion sees standardised; none for Kandinsky."""

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


class SpatialNorm(nn.Module):
    """Group normalisation, then a scale and a shift of each pixel from the latent that it lies in (equation 5)."""

    def __init__(self, channels: int, latents: int):
        super().__init__()
        self.norm = normalization("group", channels, GROUPS, eps=EPS)
        self.scale = nn.Conv2d(latents, channels, 1)
        self.shift = nn.Conv2d(latents, channels, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], guide: Float[Tensor, "b k lh lw"]
    ) -> Float[Tensor, "b c h w"]:
        """Normalised maps of a size that is a multiple of that of the latents, `guide`.

        A convolution of single pixels commutes with repeating them, so it runs at the latents' size.
        """
        rows, columns = (side // small for side, small in zip(x.shape[-2:], guide.shape[-2:]))
        blocks = rearrange(self.norm(x), "b c (h r) (w s) -> b c h r w s", r=rows, s=columns)
        scale, shift = (
            rearrange(layer(guide), "b c h w -> b c h 1 w 1") for layer in (self.scale, self.shift)
        )
        # In place, as maps of a large picture are hundreds of megabytes.
        moved = blocks * scale + shift if torch.is_grad_enabled() else blocks.mul_(scale).add_(shift)
        return rearrange(moved, "b c h r w s -> b c (h r) (w s)")


class Movq(nn.Module):
    """`config` as a network: `encode` and `decode`. Both compute in the type of their weights."""

    def __init__(self, config: MovqConfig):
        super().__init__()
        self.config = config
        channels, widths, levels = config.latent_channels, config.widths, config.attention_levels
        self.encoder = MapEncoder(
            3, channels, widths, config.blocks, group_norm(GROUPS), attention_levels=levels
        )
        self.to_latents = nn.Conv2d(channels, channels, 1)
        self.codes = nn.Embedding(config.codes, channels)
        self.from_latents = nn.Conv2d(channels, channels, 1)
        self.decoder = MapDecoder(
            channels,
            3,
            widths,
            config.blocks + 1,
            partial(SpatialNorm, latents=channels),
            attention_levels=levels,
        )

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
