"""The diffusion prior's objective: the image embedding from the caption (arXiv 2204.06125, equation 2)."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import nn

from unclip.diffusion.losses import diffusion_loss
from unclip.diffusion.parametrization import Preconditioned
from unclip.diffusion.samplers import sample
from unclip.models.prior_diffusion import DiffusionPrior, DiffusionPriorConfig
from unclip.rng import Noise
from unclip.train.config import TrainConfig
from unclip.train.objective import Losses, compiled
from unclip.train.objectives.captioned import CaptionedEmbeddings
from unclip.train.objectives.levels import losses_at_levels
from unclip.train.source import spread


class PriorObjective(CaptionedEmbeddings):
    """Frozen CLIP embeddings and captions in, denoised image embeddings out."""

    def __init__(self, config: TrainConfig, device: torch.device):
        super().__init__(config, device)
        assert isinstance(config.model, DiffusionPriorConfig)
        text = self.clip.clip.config.text
        model = replace(
            config.model, embedding=self.clip.embedding, text_width=text.width, context=text.context
        )
        self.model: DiffusionPrior = DiffusionPrior(model).to(device)
        self._standardise()
        self.process = model.process.build()
        self.denoiser = Preconditioned(self.model, self.process)
        self.training_denoiser = Preconditioned(compiled(config, device, self.model), self.process)

    def _standardise(self) -> None:
        # One scale for all dimensions, like the paper's 17.2, after the mean is taken off: small dimensions stay small.
        mean = self.train_embeddings.mean(0)
        self.model.embedding_mean.copy_(mean)
        self.model.embedding_std.fill_((self.train_embeddings - mean).square().mean().sqrt().item())

    def loss(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> Losses:
        """The squared error of the predicted embedding, captions dropped at times."""
        indices = self.train.indices(numbers)
        condition = self.drawn_condition(indices, noise)
        condition = condition.drop(noise.fork("drop").uniform() < self.model.config.dropout_text)
        x0 = self.model.standardise(self.train_images(indices))
        sigma = self.config.loss.density.sigma(noise.fork("sigma").uniform(), self.process)
        eps = noise.fork("eps").normal(x0.shape[1])
        return Losses(
            diffusion_loss(self.training_denoiser, x0, eps, sigma, condition, self.config.loss).mean(), {}
        )

    def validate(self) -> dict[str, float]:
        """Losses at fixed noise levels, and cosines of sampled with true embeddings (and, for scale, of the text's)."""
        indices = spread(256, len(self.held_out))
        condition = self.condition(self.held_out.captions(indices))
        truth = self.held_out_embeddings[torch.from_numpy(indices).to(self.device)]
        levels = losses_at_levels(
            self.denoiser, self.model.standardise(truth), condition, self.config.loss, self.process
        )
        noise = Noise(indices.tolist(), device=self.device)
        steps = self.model.sample_steps(condition, noise, steps=16, sampler="dpmpp_2m")
        drawn = self.model.unstandardise(sample(steps))
        cosine = nn.functional.cosine_similarity
        return {
            **levels,
            "cosine_sampled_image": cosine(drawn, truth).mean().item(),
            "cosine_sampled_text": cosine(drawn, condition.text_embedding).mean().item(),
            "cosine_image_text": cosine(truth, condition.text_embedding).mean().item(),
        }

    def preview(self) -> Image.Image | None:
        """Nothing to see: embeddings are no pictures."""
        return None
