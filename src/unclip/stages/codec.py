"""Image space of a renderer: how pictures become the state that diffusion runs on, and back."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unclip.diffusion.denoiser import NoiseSource
from unclip.networks.autoencoder import Posterior, standardised, unstandardised
from unclip.rng import Noise
from unclip.stages import tiles

logger = logging.getLogger(__name__)

Borrow = Callable[..., AbstractContextManager[Any]]
"""`with borrow() as network`: a network in memory, loaded if need be; `borrow(exact=True)` gives it in float32."""


Finished = Callable[[], object]


@runtime_checkable
class Codec(Protocol):
    """An image space: channels, reduction factor, value range, and the maps to and from pixels in [-1, 1]."""

    @property
    def channels(self) -> int:
        """Channels of the state."""
        ...

    @property
    def factor(self) -> int:
        """Pixels per state element along each side."""
        ...

    @property
    def clip_range(self) -> tuple[float, float] | None:
        """Range that clean estimates are clamped to during sampling; None leaves them."""
        ...

    def encode(
        self, pixels: Float[Tensor, "b 3 h w"], noise: NoiseSource | None = None
    ) -> Float[Tensor, "b c sh sw"]:
        """State of pictures in [-1, 1]; with `noise`, a sample of it where the codec has a distribution."""
        ...

    def decode(
        self, state: Float[Tensor, "b c sh sw"], finished: Finished = lambda: None
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1] of a state. `finished` is called after each of its `passes`."""
        ...

    def passes(self, height: int, width: int) -> int:
        """Runs of a network that decode a picture of so many pixels."""
        ...

    def preview(self, state: Float[Tensor, "b c sh sw"]) -> Float[Tensor, "b 3 ph pw"]:
        """Cheap approximation of `decode` for progress previews, of any size."""
        ...


@dataclass(frozen=True)
class PixelCodec:
    """The image space of pixels themselves: the state is the picture."""

    channels: int = 3
    factor: int = 1
    clip_range: tuple[float, float] | None = (-1.0, 1.0)

    def encode(
        self, pixels: Float[Tensor, "b 3 h w"], noise: NoiseSource | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """`pixels` unchanged."""
        return pixels

    def decode(
        self, state: Float[Tensor, "b 3 h w"], finished: Finished = lambda: None
    ) -> Float[Tensor, "b 3 h w"]:
        """`state` unchanged."""
        return state

    def passes(self, height: int, width: int) -> int:
        """None: there is nothing to do."""
        return 0

    def preview(self, state: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """`state` unchanged."""
        return state


class LatentCodec:
    """The image space of an autoencoder: the state is its latent, scaled as its config says.

    `config` has `latent_channels`, `factor`, `scale`, `mean` and `std`; the network that `borrow` lends has `encode`,
    which gives a `Posterior` or a latent, and `decode`. `clip_range` clamps clean estimates, in the state's scale.
    `tile` is the side in pixels of what is decoded at once; None decodes the whole.
    """

    def __init__(
        self,
        config: Any,
        borrow: Borrow,
        *,
        tile: int | None = None,
        clip_range: tuple[float, float] | None = None,
    ):
        self.config, self.borrow, self.tile = config, borrow, tile
        self.channels: int = config.latent_channels
        self.factor: int = config.factor
        self.clip_range = clip_range
        self._colours: Tensor | None = None

    def encode(
        self, pixels: Float[Tensor, "b 3 h w"], noise: NoiseSource | None = None
    ) -> Float[Tensor, "b c sh sw"]:
        """Latents of pictures: the posterior's mean, or with `noise` a sample of it."""
        state_shape(self, *pixels.shape[-2:])
        # Drawn once: a second draw would be another place in the noise.
        draws: list[Tensor] = []
        with self.borrow() as network:
            found = self._latent(network, pixels, noise, draws)
        if not bool(torch.isfinite(found).all()):
            logger.warning("the autoencoder gave numbers that are not finite: computing in float32")
            with self.borrow(exact=True) as network:
                found = self._latent(network, pixels, noise, draws)
        return found

    def _latent(self, network: Any, pixels: Tensor, noise: NoiseSource | None, draws: list[Tensor]) -> Tensor:
        found = network.encode(pixels)
        if isinstance(found, Posterior):
            if noise is not None and not draws:
                draws.append(noise.normal(*found.mean.shape[1:]))
            found = found.sample(draws[0].to(found.mean)) if draws else found.mean
        return standardised(found, self.config).float()

    def decode(
        self, state: Float[Tensor, "b c sh sw"], finished: Finished = lambda: None
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures of latents, clamped to [-1, 1]. Where half precision gives NaN, it decodes in float32."""
        z = unstandardised(state, self.config)
        with self.borrow() as network:
            pixels = self._decoded(network, z, finished)
        if not bool(torch.isfinite(pixels).all()):
            logger.warning("the autoencoder gave numbers that are not finite: computing in float32")
            with self.borrow(exact=True) as network:
                pixels = self._decoded(network, z)
        return pixels.clamp(-1, 1)

    def passes(self, height: int, width: int) -> int:
        """One, or a tile each."""
        sides = (height // self.factor, width // self.factor)
        return tiles.count(*sides, self._tile(*sides))

    def _tile(self, height: int, width: int) -> int:
        return max(height, width) if self.tile is None else max(1, self.tile // self.factor)

    def _decoded(self, network: Any, z: Tensor, finished: Finished = lambda: None) -> Tensor:
        return tiles.in_tiles(network.decode, z, self._tile(*z.shape[-2:]), self.factor, finished)

    def preview(self, state: Float[Tensor, "b c sh sw"]) -> Float[Tensor, "b 3 ph pw"]:
        """Pictures of latents by a linear map of their channels, fitted once to what the decoder makes of noise."""
        if self._colours is None:
            self._colours = self._fit(state.device)
        weights, bias = self._colours[:-1], self._colours[-1]
        flat = rearrange(state.float(), "b c h w -> b h w c") @ weights + bias
        return rearrange(flat, "b h w c -> b c h w").clamp(-1, 1)

    @torch.no_grad()
    def _fit(self, device: torch.device) -> Float[Tensor, "channels_and_one 3"]:
        # Noise that is smooth over a few elements, as latents are.
        rough = Noise([0]).normal(self.channels, 8, 8).to(device)
        state = F.interpolate(rough, scale_factor=2.0, mode="bilinear", align_corners=False)
        # Not clamped, as the map is linear.
        with self.borrow() as network:
            pixels = F.avg_pool2d(self._decoded(network, unstandardised(state, self.config)), self.factor)
        inputs = rearrange(state, "1 c h w -> (h w) c")
        inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
        wanted = rearrange(pixels, "1 c h w -> (h w) c")
        return torch.linalg.lstsq(inputs.cpu(), wanted.float().cpu()).solution.to(device)


def state_shape(codec: Codec, height: int, width: int) -> tuple[int, int, int]:
    """Shape (channels, height, width) of the state of a picture. Raises `ValueError` for sides the factor cannot divide."""
    if height % codec.factor or width % codec.factor:
        raise ValueError(f"{width}x{height} pixels are not a multiple of {codec.factor}: give sides that are")
    return codec.channels, height // codec.factor, width // codec.factor
