"""The upsamplers' objective: crops of large drawings from their degraded small copies (unCLIP, section 2.1)."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from unclip.data.degradation import choose_crops, degrade, training_pair
from unclip.diffusion.losses import diffusion_loss
from unclip.diffusion.parametrization import Preconditioned
from unclip.diffusion.samplers import sample
from unclip.generate.stages import upsample
from unclip.images import grid, to_image
from unclip.networks.upsampler import Upsampler, UpsamplerCondition, UpsamplerConfig, resize_up
from unclip.rng import Noise
from unclip.train.config import TrainConfig
from unclip.train.objective import Losses, compiled
from unclip.train.objectives.levels import losses_at_levels
from unclip.train.source import Source, spread

PREVIEWED = 256
"""At most so large a square of a drawing is shown in previews."""


class UpsamplerObjective:
    """Unconditional: no caption, no embedding, only the small picture."""

    def __init__(self, config: TrainConfig, device: torch.device):
        assert isinstance(config.model, UpsamplerConfig)
        self.config, self.device = config, device
        self.train = Source(config, "train", device, size=config.model.high_size)
        self.held_out = Source(config, "validation", device, size=config.model.high_size)
        self.model = Upsampler(config.model).to(device)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.tokenizer_json = self.space = None
        self.process = config.model.process.build()
        self.denoiser = Preconditioned(self.model, self.process)
        self.training_denoiser = Preconditioned(compiled(config, device, self.model), self.process)

    def loss(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> Losses:
        """The diffusion loss of one crop of each drawing."""
        x0, condition = self._pair(self.train, self.train.indices(numbers), noise)
        sigma = self.config.loss.density.sigma(noise.fork("sigma").uniform(), self.process)
        eps = noise.fork("eps").normal(*x0.shape[1:])
        return Losses(
            diffusion_loss(self.training_denoiser, x0, eps, sigma, condition, self.config.loss).mean(), {}
        )

    def validate(self) -> dict[str, float]:
        """Losses at fixed noise levels on fixed crops."""
        indices = spread(64, len(self.held_out))
        x0, condition = self._pair(self.held_out, indices, Noise(indices.tolist(), device=self.device))
        return losses_at_levels(self.denoiser, x0, condition, self.config.loss, self.process)

    def preview(self) -> Image.Image:
        """Rows of four drawings, or squares of their middles: small (bicubic), upsampled in 6 steps, the original."""
        config = self.model.config
        indices = spread(4, len(self.held_out))
        side = min(PREVIEWED, config.high_size)
        corner = (config.high_size - side) // 2 // config.factor * config.factor
        high = self.held_out.squares(indices, torch.full((len(indices), 2), corner), side)
        low, _ = degrade(high, Noise(indices.tolist(), device=self.device), config)
        drawn = sample(upsample(self.model, low, indices.tolist(), steps=6, sampler="dpmpp_2m"))
        rows = (resize_up(low, config.factor), drawn, high)
        return grid([to_image(picture) for row in rows for picture in row], columns=len(indices))

    def _pair(
        self, source: Source, indices: Int64[np.ndarray, " b"], noise: Noise
    ) -> tuple[Float[Tensor, "b 3 s s"], UpsamplerCondition]:
        """A crop of each drawing and its condition; of large drawings, only what the crop needs is read."""
        crops = choose_crops(noise, source.resident.size, self.model.config)
        windows = source.squares(indices, crops.corner, crops.side)
        return training_pair(windows, crops.offset, noise, self.model.config)
