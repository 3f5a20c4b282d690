"""Renderers: a network, its noise process, its image space and its conditioner, and how pictures are sampled.

The decoder and the upsamplers are instances.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.conventions import Labelling, label_of
from unclip.diffusion.denoiser import Denoiser, NoiseSource, Step
from unclip.diffusion.guidance import classifier_free_batched, clip, dynamic_threshold, switch
from unclip.diffusion.parametrization import Preconditioned, Process, Spacing
from unclip.diffusion.paths import start, start_noise
from unclip.diffusion.samplers import SAMPLERS
from unclip.networks.decoder import Decoder
from unclip.networks.tiling import TiledUnet
from unclip.networks.unet import Unet
from unclip.networks.upsampler import Upsampler
from unclip.stages.codec import Codec, PixelCodec, state_shape
from unclip.stages.conditioner import Conditioner, UnclipConditioner, UpsamplerConditioner
from unclip.stages.finite import Watch

INVERSION_FLOOR = 0.1
"""Lowest noise level at which a network that predicts x0 is inverted (see `Renderer.inversion_grid`)."""


@dataclass(frozen=True)
class Renderer:
    """How pictures are sampled from a condition. `network` and `last_network` are called (x, label, context).

    `last_network` takes the last step, for models that have a network trained for it.
    """

    network: Callable[..., Tensor]
    process: Process
    codec: Codec
    conditioner: Conditioner
    last_network: Callable[..., Tensor] | None = None
    watch: Watch = field(default_factory=Watch)
    """Whether the networks' answers were finite."""
    clips: bool = True
    """Whether clean estimates are clamped to the codec's range, or thresholded."""
    threshold: tuple[float, float] | None = None
    """Quantile and largest range of dynamic thresholding to [-1, 1], in place of the codec's range."""

    def grid(self, steps: int, spacing: Spacing | None = None) -> Float[Tensor, " levels"]:
        """Noise levels of `steps` sampler steps, descending to 0."""
        return self.process.grid(steps, spacing)

    def inversion_grid(self, steps: int) -> Float[Tensor, " levels"]:
        """Noise levels for DDIM inversion and the way back."""
        return inversion_grid(self.process, steps)

    def denoiser(
        self,
        condition: Any,
        *,
        guidance: float = 1.0,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
        grid: Float[Tensor, " levels"] | None = None,
        labelling: Labelling = "log",
    ) -> Denoiser:
        """Guided network under a condition (a `Condition`), its estimates clipped to the codec's range.

        `guidance` is the classifier-free guidance scale (1 is off), within the noise levels of `interval`;
        `rescale` brings the deviation of guided predictions back to the conditional ones' (1 all the way). `grid` is
        needed where there is a network for the last step. `labelling` says which time the network is given for a level
        between two of the table.
        """
        model = Preconditioned(self.watch.over(self.network), self._labelled(labelling))
        context, null = self.conditioner(condition, guided=guidance != 1)
        if null is None:
            denoise = self._clipped(model.bind(context))
        else:
            low, high = interval or (0.0, math.inf)
            guided = classifier_free_batched(
                model, context, null, guidance, interval=(low, high), raw_rescale=rescale
            )
            denoise = self._clipped(guided)
        if self.last_network is not None and grid is not None:
            last = self._clipped(
                Preconditioned(self.watch.over(self.last_network), self.process).bind(context)
            )
            denoise = switch(denoise, last, float(grid[-2]))
        return denoise

    def _labelled(self, labelling: Labelling) -> Process:
        table = self.process.table
        if labelling == "log" or table is None:
            return self.process
        row = replace(self.process.parametrization, label=partial(label_of, table, labelling))
        return replace(self.process, parametrization=row)

    def for_inversion(self) -> "Renderer":
        """The renderer for DDIM inversion and the way back.

        Pixels end at the range that estimates are clamped to. Latents do not: a picture's own may lie outside of it.
        """
        return self if self.codec.factor == 1 else replace(self, clips=False)

    def noise_state(
        self, noise: NoiseSource, level: float | Tensor, height: int, width: int, device: torch.device
    ) -> Float[Tensor, "b c sh sw"]:
        """State of pure noise at a noise level, for pictures of `height` x `width` pixels."""
        return start(noise.normal(*state_shape(self.codec, height, width)), level).to(device)

    def finished(self, x: Float[Tensor, "b c sh sw"], level: float | Tensor) -> Float[Tensor, "b c sh sw"]:
        """The result of a walk that ended at `level`: the state as it is, or above 0 in DDPM's units."""
        return x if float(level) == 0 else start_noise(x, level)

    def sample(
        self,
        denoise: Denoiser,
        x: Float[Tensor, "b ..."],
        grid: Float[Tensor, " levels"],
        *,
        sampler: str,
        noise: NoiseSource,
        **options: Any,
    ) -> Iterator[Step]:
        """Steps of the named sampler down a grid; `options` are the sampler's own, such as DDIM's eta."""
        if sampler == "plms" and self.process.parametrization.name == "v":
            options = {"mixed": "v", **options}
        return SAMPLERS[sampler](denoise, x, grid, noise=noise, **options)

    def sample_from_noise(
        self,
        denoise: Denoiser,
        noise: NoiseSource,
        *,
        size: int,
        steps: int,
        sampler: str,
        device: torch.device,
    ) -> Iterator[Step]:
        """Steps of the named sampler from pure noise, for square pictures of `size` pixels."""
        grid = self.grid(steps)
        x = self.noise_state(noise, grid[0], size, size, device)
        return self.sample(denoise, x, grid, sampler=sampler, noise=noise)

    def _clipped(self, denoise: Denoiser) -> Denoiser:
        if self.clips and self.threshold is not None:
            return dynamic_threshold(denoise, self.threshold[0], 1.0, self.threshold[1])
        limits = self.codec.clip_range if self.clips else None
        return denoise if limits is None else clip(denoise, *limits)


def decoder_renderer(decoder: Decoder, codec: Codec | None = None) -> Renderer:
    """Renderer of a decoder, in pixels unless a codec is given."""
    return Renderer(
        network=decoder,
        process=decoder.config.process.build(),
        codec=PixelCodec() if codec is None else codec,
        conditioner=UnclipConditioner(decoder),
    )


def upsampler_renderer(upsampler: Upsampler, tile: int | None = None) -> Renderer:
    """Renderer of an upsampler; with `tile`, the U-Nets run in tiles of that many pixels, so that memory is bounded."""

    def tiled(net: torch.nn.Module) -> torch.nn.Module:
        return TiledUnet(net, tile) if tile is not None and isinstance(net, Unet) else net

    def network(net: torch.nn.Module) -> Callable[..., Tensor]:
        def predict(x: Tensor, label: Tensor, condition: Any) -> Tensor:
            return upsampler.predict(net, x, label, condition)

        return predict

    last = upsampler.last_net
    return Renderer(
        network=network(tiled(upsampler.net)),
        process=upsampler.config.process.build(),
        codec=PixelCodec(),
        conditioner=UpsamplerConditioner(upsampler),
        last_network=None if last is None else network(tiled(last)),
    )


def inversion_grid(process: Process, steps: int) -> Float[Tensor, " levels"]:
    """Noise levels for DDIM inversion and the way back, descending to 0.

    Where the network predicts x0, its error does not vanish with sigma, and x_T would hold that error divided by the
    lowest sigma. So its grid ends at `INVERSION_FLOOR`, which keeps x_T near N(0, I).
    """
    grid = process.grid(steps)
    if process.parametrization.name != "x0":
        return grid
    return torch.cat([grid[grid > INVERSION_FLOOR], grid.new_tensor([INVERSION_FLOOR, 0.0])])
