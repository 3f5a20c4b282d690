"""The autoencoder of latent diffusion (arXiv 2112.10752): pictures to a Gaussian over latents, and latents to pictures."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unclip.nn.map_blocks import MapDecoder, MapEncoder, group_norm
from unclip.nn.resample import depth_to_space, space_to_depth

LOG_VARIANCE = (-30.0, 20.0)
"""Range that the logarithm of the posterior's variance is clamped to."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The shape of an `Autoencoder`, and how its latents are scaled for diffusion.

    `multiples` has one factor of `channels` for each level, the finest first; the picture is halved between levels.
    `blocks` counts the residual blocks of a level of the encoder; the decoder has one more. `patch` folds blocks of pixels
    into channels at the entrance and unfolds them at the exit, which spares the costly levels of many pixels. Diffusion runs on
    ``(z - mean) / std * scale``, with a `mean` and a `std` per channel where they are given.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    in_channels: int = 3
    channels: int = 128
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    patch: int = 1
    blocks: int = 2
    latent_channels: int = 4
    attention_levels: tuple[int, ...] = ()
    middle_attention: bool = True
    groups: int = 32
    quant: bool = True
    """Whether 1x1 convolutions follow the encoder and precede the decoder."""
    dropout: float = 0.0
    scale: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for statistics of another number of channels, and for a scale or a patch that is not positive."""
        if self.patch < 1:
            raise ValueError(f"patch is {self.patch}; it must be at least 1")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.latent_channels:
                raise ValueError(
                    f"{name} has {len(values)} numbers, the latent has {self.latent_channels} channels"
                )
        if self.scale <= 0 or any(value <= 0 for value in self.std or ()):
            raise ValueError("scale and std must be positive")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * multiple for multiple in self.multiples)

    @property
    def factor(self) -> int:
        """Pixels per latent element along each side."""
        return self.patch * 2 ** (len(self.multiples) - 1)


class Posterior(NamedTuple):
    """A diagonal Gaussian over latents."""

    mean: Float[Tensor, "b c h w"]
    log_variance: Float[Tensor, "b c h w"]

    def sample(self, noise: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The latent that standard normal `noise` stands for."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    # Auto-Encoding Variational Bayes (arXiv 1312.6114), appendix B.
    def kl(self) -> Float[Tensor, " b"]:
        """KL divergence from N(0, I) in nats, summed over a picture."""
        terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.flatten(1).sum(1)


class Autoencoder(nn.Module):
    """Encoder and decoder. Raises ValueError for pictures whose sides are no multiples of `config.factor`."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        norm, latent = group_norm(config.groups), config.latent_channels
        shape = {
            "attention_levels": config.attention_levels,
            "middle_attention": config.middle_attention,
            "dropout": config.dropout,
        }
        pixels = config.in_channels * config.patch**2
        self.encoder = MapEncoder(pixels, 2 * latent, config.widths, config.blocks, norm, **shape)
        self.quant = nn.Conv2d(2 * latent, 2 * latent, 1) if config.quant else nn.Identity()
        self.post_quant = nn.Conv2d(latent, latent, 1) if config.quant else nn.Identity()
        self.decoder = MapDecoder(latent, pixels, config.widths, config.blocks + 1, norm, **shape)

    def encode(self, pixels: Float[Tensor, "b 3 h w"]) -> Posterior:
        """Pictures in [-1, 1] -> posterior of their latents, float32."""
        if any(side % self.config.factor for side in pixels.shape[-2:]):
            raise ValueError(
                f"a picture of {pixels.shape[-1]}x{pixels.shape[-2]} does not fit: both sides must be multiples of "
                f"{self.config.factor}"
            )
        maps = self.encoder(space_to_depth(pixels, self.config.patch))
        mean, log_variance = self.quant(maps).float().chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(*LOG_VARIANCE))

    def decode(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 hh ww"]:
        """Latents as the encoder gives them -> pictures near [-1, 1], float32, not clamped."""
        return depth_to_space(self.decoder(self.post_quant(z)), self.config.patch).float()

    def forward(
        self, pixels: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b c hz wz"] | None = None
    ) -> tuple[Float[Tensor, "b 3 h w"], Posterior]:
        """Reconstruction of pictures and their posterior; without `noise`, of its mean."""
        posterior = self.encode(pixels)
        return self.decode(posterior.mean if noise is None else posterior.sample(noise)), posterior


def standardised(z: Float[Tensor, "b c h w"], config: Any) -> Float[Tensor, "b c h w"]:
    """Latents as diffusion sees them: ``(z - mean) / std * scale``, of any config with these three."""
    mean, std = _statistics(z, config)
    return (z - mean) / std * config.scale


def unstandardised(x: Float[Tensor, "b c h w"], config: Any) -> Float[Tensor, "b c h w"]:
    """The inverse of `standardised`."""
    mean, std = _statistics(x, config)
    return x / config.scale * std + mean


def _statistics(like: Tensor, config: Any) -> tuple[Tensor | float, Tensor | float]:
    def channels(values: tuple[float, ...] | None, default: float) -> Tensor | float:
        return default if values is None else torch.tensor(values).to(like)[:, None, None]

    return channels(config.mean, 0.0), channels(config.std, 1.0)
