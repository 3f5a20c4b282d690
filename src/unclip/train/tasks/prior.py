"""The diffusion prior's stage: denoising image embeddings, given captions (arXiv 2204.06125, equation 2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import nn

from unclip.diffusion.losses import LossConfig, diffusion_loss
from unclip.diffusion.parametrization import Preconditioned
from unclip.diffusion.samplers import sample
from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig
from unclip.rng import Noise
from unclip.stages.prior import sample_diffusion_prior
from unclip.train.config import ClipDependent
from unclip.train.embed import ClipRun
from unclip.train.task import Built, Losses, Task, compiled
from unclip.train.tasks.captions import CaptionedBatches, CaptionedEmbeddings, condition_of
from unclip.train.tasks.levels import losses_at_levels


@dataclass(frozen=True, kw_only=True)
class PriorTraining(ClipDependent):
    """A run of the diffusion prior's stage."""

    stage: Literal["prior"] = "prior"
    model: DiffusionPriorConfig
    loss: LossConfig = field(default_factory=LossConfig)
    dropout_text: float = 0.1
    """Share of samples that lose their caption, for classifier-free guidance."""

    MOVED: ClassVar[Mapping[str, str]] = {"model.dropout_text": "dropout_text"}


class PriorTask(Task[DiffusionPrior]):
    """The diffusion loss of standardised image embeddings, captions dropped at times."""

    def __init__(self, config: PriorTraining, network: DiffusionPrior, clip: ClipRun, device: torch.device):
        super().__init__()
        self.config, self.network, self.clip, self.device = config, network, clip, device
        self.process = network.config.process.build()
        self.denoiser = Preconditioned(network, self.process)
        self.training_denoiser = Preconditioned(compiled(config, device, network), self.process)

    def forward(self, batch: CaptionedEmbeddings, noise: Noise) -> Losses:
        """The squared error of the predicted embedding."""
        condition = condition_of(self.clip, batch.tokens)
        condition = condition.drop(noise.fork("drop").uniform() < self.config.dropout_text)
        x0 = self.network.standardise(batch.image_embedding)
        sigma = self.config.loss.density.sigma(noise.fork("sigma").uniform(), self.process)
        eps = noise.fork("eps").normal(x0.shape[1])
        return Losses(
            diffusion_loss(self.training_denoiser, x0, eps, sigma, condition, self.config.loss).mean(), {}
        )

    def validate(self, batches: CaptionedBatches) -> dict[str, float]:
        """Losses at fixed noise levels, and cosines of sampled with true embeddings (and, for scale, of the text's)."""
        indices, held_out = batches.held_out_pairs(256)
        condition, truth = condition_of(self.clip, held_out.tokens), held_out.image_embedding
        levels = losses_at_levels(
            self.denoiser, self.network.standardise(truth), condition, self.config.loss, self.process
        )
        noise = Noise(indices.tolist(), device=self.device)
        steps = sample_diffusion_prior(self.network, condition, noise, steps=16, sampler="dpmpp_2m")
        drawn = self.network.unstandardise(sample(steps))
        cosine = nn.functional.cosine_similarity
        return {
            **levels,
            "cosine_sampled_image": cosine(drawn, truth).mean().item(),
            "cosine_sampled_text": cosine(drawn, condition.text_embedding).mean().item(),
            "cosine_image_text": cosine(truth, condition.text_embedding).mean().item(),
        }


def build(config: PriorTraining, device: torch.device) -> Built:
    """The diffusion prior, with CLIP's sizes and the training embeddings' mean and deviation, and its data."""
    batches = CaptionedBatches(config, device)
    text = batches.clip.clip.config.text
    model = replace(
        config.model, embedding=batches.clip.embedding, text_width=text.width, context=text.context
    )
    network = DiffusionPrior(model).to(device)
    # One scale for all dimensions, like the paper's 17.2, after the mean is taken off: small dimensions stay small.
    mean = batches.train_embeddings.mean(0)
    network.embedding_mean.copy_(mean)
    network.embedding_std.fill_((batches.train_embeddings - mean).square().mean().sqrt().item())
    return Built(PriorTask(config, network, batches.clip, device), batches)
