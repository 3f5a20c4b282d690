"""The decoder's objective: the picture from its image embedding and caption, each dropped at times (GLIDE, unCLIP)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from unclip.diffusion.losses import diffusion_loss
from unclip.diffusion.parametrization import Preconditioned
from unclip.diffusion.samplers import sample
from unclip.generate.stages import decode, decoder_denoiser
from unclip.images import grid, to_image
from unclip.models.decoder import CaptionConfig, Decoder, DecoderCondition, DecoderConfig
from unclip.rng import Noise
from unclip.train.config import TrainConfig
from unclip.train.embed import ClipRun
from unclip.train.objective import Losses, by_block, compiled
from unclip.train.objectives.hints import random_hint
from unclip.train.objectives.levels import losses_at_levels
from unclip.train.source import Source, on_device, spread


class DecoderObjective:
    """Pictures, their embeddings by the frozen CLIP, their captions, and where the config says so, holes to fill."""

    def __init__(self, config: TrainConfig, device: torch.device):
        assert isinstance(config.model, DecoderConfig)
        self.config, self.device = config, device
        self.clip = ClipRun(config, device)
        self.tokenizer_json, self.space = self.clip.tokenizer_json, self.clip.space
        self.train = Source(config, "train", device)
        self.held_out = Source(config, "validation", device)
        cache = Path(config.out).parent / "embeddings"
        self.train_embeddings = self.clip.image_embeddings(self.train, cache)
        self.held_out_embeddings = self.clip.image_embeddings(self.held_out, cache)
        self.mean_embedding = self.train_embeddings.mean(0)
        self.model = Decoder(self._fitted(config.model)).to(device)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        # On a GPU the step's captions are chosen there.
        self.resident = device.type == "cuda" and self.model.caption is not None
        if self.resident:
            self.train.read_captions(self.clip.tokenizer)
        self.process = config.model.process.build()
        self.denoiser = Preconditioned(self.model, self.process)
        self.encode = by_block(config, device, self.model.encode)
        self.training_denoiser = Preconditioned(compiled(config, device, self.model), self.process)

    def _fitted(self, config: DecoderConfig) -> DecoderConfig:
        """The config with the embedding, the scale and the vocabulary that the CLIP stage really has."""
        caption: CaptionConfig | None = None
        if config.caption is not None:
            tokenizer = self.clip.tokenizer
            caption = replace(
                config.caption, vocabulary=tokenizer.vocabulary, context=tokenizer.context, end=tokenizer.end
            )
        scale = 1.0 / self.train_embeddings.square().mean().sqrt().item()
        return replace(
            config, embedding=self.clip.embedding, embedding_scale=round(scale, 4), caption=caption
        )

    def loss(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> Losses:
        """The diffusion loss of drawings under dropped conditions."""
        indices = self.train.indices(numbers)
        x0 = self.train.pictures(indices)
        condition = self._leaning(self._drawn(indices, noise), noise)
        drop = noise.fork("drop").uniform(2)
        config = self.model.config
        condition = condition.drop(drop[:, 0] < config.dropout_image, drop[:, 1] < config.dropout_caption)
        if config.inpainting:
            condition = replace(condition, hint=random_hint(x0, noise.fork("hint"), config.dropout_hint))
        if config.augmentation:
            moved = self.train.augmentations(indices, config.augmentation)
            condition = replace(condition, augmentation=moved)
        sigma = self.config.loss.density.sigma(noise.fork("sigma").uniform(), self.process)
        eps = noise.fork("eps").normal(*x0.shape[1:])
        context = self.encode(condition)
        loss = diffusion_loss(self.training_denoiser, x0, eps, sigma, context, self.config.loss)
        if self.model.uncertainty is None:
            return Losses(loss.mean(), {})
        return Losses(self.model.uncertainty(loss, sigma).mean(), {"unweighted": loss.detach().mean()})

    def _drawn(self, indices: Int64[np.ndarray, " b"], noise: Noise) -> DecoderCondition:
        """Training drawings by their embeddings and one caption each, drawn with `noise`."""
        if not self.resident:
            return self.condition(self.train_embeddings, self.train.captions(indices, noise), indices)
        keep = torch.ones(len(indices), dtype=torch.bool, device=self.device)
        embeddings = self.train_embeddings[on_device(indices, self.device)]
        return DecoderCondition(embeddings, self.train.tokens(indices, noise).tokens, keep, keep)

    def _leaning(self, condition: DecoderCondition, noise: Noise) -> DecoderCondition:
        """The condition with each embedding moved some way in the direction of another picture's, its length kept."""
        most = self.config.data.embedding_noise
        if not most:
            return condition
        z, lean = condition.image_embedding, noise.fork("lean")
        others = self.train_embeddings[lean.integers(len(self.train_embeddings))]
        moved = z + (most * lean.uniform()[:, None]).to(z) * (others - self.mean_embedding)
        moved = moved * (z.norm(dim=1, keepdim=True) / moved.norm(dim=1, keepdim=True))
        return replace(condition, image_embedding=moved)

    def condition(
        self, embeddings: Float[Tensor, "n d"], captions: list[str], indices: Int64[np.ndarray, " b"]
    ) -> DecoderCondition:
        """Drawings by their embeddings and captions, nothing dropped."""
        keep = torch.ones(len(indices), dtype=torch.bool, device=self.device)
        tokens = None
        if self.model.caption is not None:
            tokens = self.clip.tokenizer.encode(captions).to(self.device)
        return DecoderCondition(embeddings[torch.from_numpy(indices).to(self.device)], tokens, keep, keep)

    def _held_out(self, count: int) -> tuple[Float[Tensor, "b 3 h w"], DecoderCondition]:
        indices = spread(count, len(self.held_out))
        condition = self.condition(self.held_out_embeddings, self.held_out.captions(indices), indices)
        return self.held_out.pictures(indices), condition

    def validate(self) -> dict[str, float]:
        """Losses at fixed noise levels with both conditions."""
        x0, condition = self._held_out(64)
        return losses_at_levels(
            self.denoiser, x0, self.model.encode(condition), self.config.loss, self.process
        )

    def preview(self) -> Image.Image:
        """Held-out drawings, and below each the decoder's picture of its embedding (guidance 2, 16 steps)."""
        x0, condition = self._held_out(16)
        denoise = decoder_denoiser(self.model, condition, guidance=2.0)
        steps = decode(self.model, denoise, range(len(x0)), steps=16, sampler="dpmpp_2m", device=self.device)
        drawn = sample(steps)
        rows = [row for i in range(0, len(x0), 8) for row in (x0[i : i + 8], drawn[i : i + 8])]
        return grid([to_image(picture) for row in rows for picture in row], columns=min(8, len(x0)))
