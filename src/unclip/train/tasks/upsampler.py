"""The upsamplers' stages: crops of large pictures from their degraded small copies (arXiv 2204.06125, section 2.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from unclip.data.degradation import (
    Crops,
    DegradationConfig,
    add_artifacts,
    choose_crops,
    cut,
    degrade,
    reduce,
)
from unclip.diffusion.losses import LossConfig, diffusion_loss
from unclip.diffusion.parametrization import Preconditioned
from unclip.diffusion.samplers import sample
from unclip.images import grid, to_image
from unclip.networks.upsampler import Upsampler, UpsamplerCondition, UpsamplerConfig, resize_up
from unclip.rng import Noise
from unclip.stages.conditioner import Condition
from unclip.stages.renderer import upsampler_renderer
from unclip.train.batches import SampleBatches
from unclip.train.config import TrainConfig
from unclip.train.source import Source, evenly_spaced
from unclip.train.task import Built, Losses, Task, compiled
from unclip.train.tasks.levels import losses_at_levels

PREVIEWED = 256
"""At most so large a square of a picture is shown in previews."""

_DEGRADATION = ("bsr_strength", "blur_kernel", "blur_sigma", "blur_probability")
_ARTIFACTS = ("noise_level", "seam_level", "seam_patch")


@dataclass(frozen=True, kw_only=True)
class UpsamplerTraining(TrainConfig):
    """A run of an upsampler's stage: `upsampler`, or `upsampler_1024` for the second one of a cascade."""

    stage: Literal["upsampler", "upsampler_1024"] = "upsampler"
    model: UpsamplerConfig
    loss: LossConfig = field(default_factory=LossConfig)
    degradation: DegradationConfig = field(default_factory=DegradationConfig)
    crop_fraction: float = 0.25
    """Side of a training crop over the side of the picture."""

    MOVED: ClassVar[Mapping[str, str]] = {
        "model.degradation": "degradation.method",
        "model.crop_fraction": "crop_fraction",
        **{f"model.{name}": f"degradation.{name}" for name in (*_DEGRADATION, *_ARTIFACTS)},
    }

    def __post_init__(self) -> None:
        """Raise ValueError for a crop that does not fit the network."""
        super().__post_init__()
        size, model = self.crop_size, self.model
        if size % model.factor or size % model.net.divisor or size > model.high_size:
            raise ValueError(
                f"a crop of {size} pixels must be a multiple of {model.factor} and of {model.net.divisor}"
                f" and at most {model.high_size}; change crop_fraction {self.crop_fraction}"
            )

    @property
    def crop_size(self) -> int:
        """Side of a training crop, in pixels of the large picture."""
        return round(self.model.high_size * self.crop_fraction)


@dataclass(frozen=True, eq=False)
class CropBatch:
    """Windows of large pictures around the crops to learn."""

    windows: Float[Tensor, "b 3 w w"]
    crops: Crops
    small: Float[Tensor, "b 3 v v"] | None = None
    """The windows' small copies by BSR, which takes long and so is done ahead; None for blur."""


class CropBatches(SampleBatches):
    """Random crops of large pictures; of each picture, only what its crop needs is read."""

    def __init__(self, config: UpsamplerTraining, device: torch.device):
        super().__init__(config, device, size=config.model.high_size)
        self.config = config

    def batch(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> CropBatch:
        """One crop of each sample with these numbers, at a place drawn by `noise`."""
        return self._crops(self.train, self.train.indices(numbers), noise)

    def held_out_crops(self, count: int) -> tuple[CropBatch, Noise]:
        """Fixed crops of at most `count` held-out pictures, and the noise that they were drawn by."""
        indices = evenly_spaced(count, len(self.held_out))
        noise = Noise(indices.tolist(), device=self.device)
        return self._crops(self.held_out, indices, noise), noise

    def _crops(self, source: Source, indices: Int64[np.ndarray, " b"], noise: Noise) -> CropBatch:
        config, factor = self.config, self.config.model.factor
        crops = choose_crops(noise, source.decoded.size, size=config.crop_size, factor=factor)
        windows = source.squares(indices, crops.corner, crops.side)
        bsr = config.degradation.method == "bsr"
        return CropBatch(windows, crops, reduce(windows, noise, factor, config.degradation) if bsr else None)


class UpsamplerTask(Task[Upsampler]):
    """The diffusion loss of crops, given the same crops of degraded small copies."""

    def __init__(self, config: UpsamplerTraining, network: Upsampler, device: torch.device):
        super().__init__()
        self.config, self.network, self.device = config, network, device
        self.process = config.model.process.build()
        self.denoiser = Preconditioned(network, self.process)
        self.training_denoiser = Preconditioned(compiled(config, device, network), self.process)

    def forward(self, batch: CropBatch, noise: Noise) -> Losses:
        """The loss of the batch's crops."""
        x0, condition = self._pair(batch, noise)
        sigma = self.config.loss.density.sigma(noise.fork("sigma").uniform(), self.process)
        eps = noise.fork("eps").normal(*x0.shape[1:])
        return Losses(
            diffusion_loss(self.training_denoiser, x0, eps, sigma, condition, self.config.loss).mean(), {}
        )

    def validate(self, batches: CropBatches) -> dict[str, float]:
        """Losses at fixed noise levels on fixed crops."""
        x0, condition = self._pair(*batches.held_out_crops(64))
        return losses_at_levels(self.denoiser, x0, condition, self.config.loss, self.process)

    def preview(self, batches: CropBatches) -> Image.Image:
        """Rows of four pictures, or squares of their middles: small (bicubic), upsampled in 6 steps, the original."""
        config, held_out = self.network.config, batches.held_out
        indices = evenly_spaced(4, len(held_out))
        side = min(PREVIEWED, config.high_size)
        corner = (config.high_size - side) // 2 // config.factor * config.factor
        high = held_out.squares(indices, torch.full((len(indices), 2), corner), side)
        noise = Noise(indices.tolist(), device=self.device)
        low, _ = degrade(high, noise, config.factor, self.config.degradation)
        renderer = upsampler_renderer(self.network)
        denoise = renderer.denoiser(Condition(low=low), grid=renderer.grid(6))
        noise = Noise(indices.tolist()).fork(f"upsampler {config.high_size}")
        steps = renderer.sample_from_noise(
            denoise, noise, size=high.shape[-1], steps=6, sampler="dpmpp_2m", device=low.device
        )
        drawn = sample(steps)
        rows = (resize_up(low, config.factor), drawn, high)
        return grid([to_image(picture) for row in rows for picture in row], columns=len(indices))

    def _pair(self, batch: CropBatch, noise: Noise) -> tuple[Float[Tensor, "b 3 s s"], UpsamplerCondition]:
        return training_pair(batch, noise, self.config)


def training_pair(
    batch: CropBatch, noise: Noise, config: UpsamplerTraining
) -> tuple[Float[Tensor, "b c s s"], UpsamplerCondition]:
    """The crop in each window, and the same crop of the window's degraded, resized-up copy."""
    windows, factor = batch.windows, config.model.factor
    small = batch.small
    if small is None:
        small = reduce(windows, noise, factor, config.degradation)
    low, level = add_artifacts(small, noise, config.degradation)
    resized, size = resize_up(low, factor).to(windows), config.crop_size
    offset = batch.crops.offset
    return cut(windows, offset, size), UpsamplerCondition(cut(resized, offset, size), level)


def build(config: UpsamplerTraining, device: torch.device) -> Built:
    """The upsampler and its data."""
    batches = CropBatches(config, device)
    network = Upsampler(config.model).to(device)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return Built(UpsamplerTask(config, network, device), batches)
