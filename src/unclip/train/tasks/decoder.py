"""The decoder's stages: pictures from image embeddings and captions, each dropped at times (GLIDE, unCLIP).

`decoder` learns pixels, `latent_decoder` the latents of a trained autoencoder; all else is the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from unclip.checkpoints.weights_digest import weights_digest
from unclip.diffusion.denoiser import per_sample
from unclip.diffusion.losses import LossConfig, Uncertainty, diffusion_loss
from unclip.diffusion.parametrization import Preconditioned
from unclip.diffusion.samplers import sample
from unclip.images import grid, to_image
from unclip.networks.decoder import CaptionConfig, Decoder, DecoderCondition, DecoderConfig
from unclip.rng import Noise
from unclip.stages.codec import Codec, PixelCodec
from unclip.stages.conditioner import reads_text_encodings
from unclip.stages.renderer import decoder_renderer
from unclip.train.begin import take_weights
from unclip.train.config import ClipDependent
from unclip.train.cut_captions import report_cut_captions
from unclip.train.distillation import DistillationConfig, Teacher
from unclip.train.embed import ClipReader
from unclip.train.source import evenly_spaced, on_device
from unclip.train.task import Built, ByBlock, Losses, Task, by_block, compiled
from unclip.train.tasks.embedded import EmbeddedBatches
from unclip.train.tasks.hints import random_hint
from unclip.train.tasks.image_space import LatentSpace, PixelSpace, offset
from unclip.train.tasks.levels import losses_at_levels


@dataclass(frozen=True, kw_only=True)
class DecoderTraining(ClipDependent):
    """A run of the decoder's stage. Its CLIP gives the embeddings, and reads the captions of a Karlo-form decoder."""

    stage: Literal["decoder"] = "decoder"
    model: DecoderConfig
    loss: LossConfig = field(default_factory=LossConfig)
    dropout_image: float = 0.1
    """Share of samples that lose their image embedding."""
    dropout_caption: float = 0.5
    """Share of samples that lose their caption."""
    dropout_hint: float = 0.5
    """Share of samples whose inpainting hint is empty: everything is to be drawn."""
    embedding_noise: float = 0.0
    """Image embeddings lean by up to this factor towards those of other pictures, as a prior's do."""
    uncertainty: bool = False
    """Whether the expected loss at each noise level is learned as well, and the loss divided by it."""
    distillation: DistillationConfig | None = None
    """Learn what the weights of `init` answer, under guidance or after several steps, in place of the pictures."""

    def __post_init__(self) -> None:
        """Raise ValueError for a distillation of no weights."""
        super().__post_init__()
        if self.distillation is not None and not self.init:
            raise ValueError("distillation learns from the weights of a model: set init to it")

    MOVED: ClassVar[Mapping[str, str]] = {
        f"model.{name}": name for name in ("dropout_image", "dropout_caption", "dropout_hint", "uncertainty")
    }


@dataclass(frozen=True, kw_only=True)
class LatentDecoderTraining(DecoderTraining):
    """A run of the decoder's stage in the latents of an autoencoder."""

    stage: Literal["latent_decoder"] = "latent_decoder"  # pyright: ignore[reportIncompatibleVariableOverride]
    autoencoder: str = ""
    """Run folder of the autoencoder stage, or a model with an autoencoder."""
    flip: bool = False
    """Whether half of the visits show the mirror image."""
    noise_offset: float = 0.0
    """Standard deviation of a constant that is added to the noise of each channel, so that very dark and very bright pictures
    are learned."""


@dataclass(frozen=True, eq=False)
class DecoderBatch:
    """Pictures, or their latents, and their conditions."""

    pictures: Float[Tensor, "b c h w"]
    image_embedding: Float[Tensor, "b d"]
    tokens: Int64[Tensor, "b n"] | None
    """None for a decoder without captions."""
    augmentation: Float[Tensor, "b a"] | None
    """The numbers that tell how each picture was moved; None for a decoder that does not read them."""

    @property
    def condition(self) -> DecoderCondition:
        """The conditions, nothing dropped."""
        keep = torch.ones(len(self.pictures), dtype=torch.bool, device=self.pictures.device)
        return DecoderCondition(self.image_embedding, self.tokens, keep, keep)


class DecoderBatches(EmbeddedBatches):
    """Pictures, their embeddings by the finished CLIP stage, and their captions."""

    def __init__(self, config: DecoderTraining, device: torch.device):
        super().__init__(config, device)
        self.model = config.model
        self.mean_embedding, self.embedding_noise = self.train_embeddings.mean(0), config.embedding_noise
        if config.model.caption is not None:
            report_cut_captions(self.train, self.clip.tokenizer)
        self.images: PixelSpace | LatentSpace = PixelSpace()
        if isinstance(config, LatentDecoderTraining):
            sources = self.train, self.held_out
            self.images = LatentSpace(config.autoencoder, config, sources, device, flip=config.flip)
        self.latent_form = self.images.form
        self.teacher: Teacher | None = None
        if device.type == "cuda" and config.model.caption is not None:
            self.train.read_captions(self.clip.tokenizer)

    def batch(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> DecoderBatch:
        """The samples with these numbers, each with a caption drawn by `noise`."""
        indices, count = self.train.indices(numbers), self.model.augmentation
        if self.train.has_tokens:
            rows, chosen = on_device(indices, self.device), self.train.tokens(indices, noise)
            batch = DecoderBatch(
                self.images.learned(self.train, indices, noise),
                self.train_embeddings[rows],
                chosen.tokens,
                None,
            )
        else:
            captions = self.train.captions(indices, noise)
            pictures = self.images.learned(self.train, indices, noise)
            batch = self._of(pictures, self.train.rows(self.train_embeddings, indices), captions)
        if self.embedding_noise:
            batch = replace(batch, image_embedding=self._leaning(batch.image_embedding, noise.fork("lean")))
        return replace(batch, augmentation=self.train.augmentations(indices, count)) if count else batch

    def _leaning(self, z: Float[Tensor, "b d"], noise: Noise) -> Float[Tensor, "b d"]:
        """Embeddings moved some way in the direction of another picture's, their lengths kept."""
        others = self.train_embeddings[noise.integers(len(self.train_embeddings)).to(z.device)]
        factor = (self.embedding_noise * noise.uniform()[:, None]).to(z)
        moved = z + factor * (others - self.mean_embedding)
        return moved * (z.norm(dim=1, keepdim=True) / moved.norm(dim=1, keepdim=True))

    def held_out_pictures(self, count: int) -> DecoderBatch:
        """At most `count` held-out pictures, each with its first caption."""
        indices = evenly_spaced(count, len(self.held_out))
        pictures = self.images.held_out(self.held_out, indices)
        rows = self.held_out.rows(self.held_out_embeddings, indices)
        return self._of(pictures, rows, self.held_out.captions(indices))

    def _of(
        self,
        pictures: Float[Tensor, "b c h w"],
        embeddings: Float[Tensor, "b d"],
        captions: list[str],
    ) -> DecoderBatch:
        """Pictures with their embeddings and these captions."""
        tokens = None
        if self.model.caption is not None:
            tokens = self.clip.tokenizer.encode(captions).to(self.device)
        return DecoderBatch(pictures, embeddings, tokens, None)


class DecoderTask(Task[Decoder]):
    """The diffusion loss of pictures under dropped conditions and, for inpainting, random holes.

    `reader` is the frozen CLIP of a decoder that reads captions by CLIP's own tower.
    """

    def __init__(
        self,
        config: DecoderTraining,
        network: Decoder,
        device: torch.device,
        *,
        reader: ClipReader | None = None,
        codec: Codec | None = None,
        teacher: Teacher | None = None,
    ):
        super().__init__()
        self.teacher = teacher
        self.reader, self.codec = reader, PixelCodec() if codec is None else codec
        self.config, self.network, self.device = config, network, device
        self.uncertainty = Uncertainty().to(device) if config.uncertainty else None
        self.process = network.config.process.build()
        self.denoiser = Preconditioned(network, self.process)
        self.encode = ByBlock(network.encode) if by_block(config, device) else None
        self.training_denoiser = Preconditioned(compiled(config, device, network), self.process)

    def forward(self, batch: DecoderBatch, noise: Noise) -> Losses:
        """The loss of the batch, every condition dropped for its share of the samples."""
        config, x0 = self.config, batch.pictures
        drop = noise.fork("drop").uniform(2)
        condition = self._read(batch.condition).drop(
            drop[:, 0] < config.dropout_image, drop[:, 1] < config.dropout_caption
        )
        if self.network.config.inpainting:
            condition = replace(condition, hint=random_hint(x0, noise.fork("hint"), config.dropout_hint))
        if batch.augmentation is not None:
            condition = replace(condition, augmentation=batch.augmentation)
        u, end = noise.fork("sigma").uniform(), None
        if self.teacher is None:
            sigma = config.loss.density.sigma(u, self.process)
        else:
            sigma, end = self.teacher.sigma(u, config.loss.density, self.process)
        eps = noise.fork("eps").normal(*x0.shape[1:])
        if isinstance(config, LatentDecoderTraining):
            eps = offset(eps, noise, config.noise_offset)
        if self.teacher is not None:
            # The same noisy pictures, taken apart as the teacher has it.
            x = x0 + per_sample(sigma, x0) * eps
            x0 = self.teacher.estimate(x, sigma, end, condition)
            eps = (x - x0) / per_sample(sigma, x)
        context = (self.encode or self.network.encode)(condition)
        loss = diffusion_loss(self.training_denoiser, x0, eps, sigma, context, config.loss)
        if self.uncertainty is None:
            return Losses(loss.mean(), {})
        return Losses(self.uncertainty(loss, sigma).mean(), {"unweighted": loss.detach().mean()})

    def validate(self, batches: DecoderBatches) -> dict[str, float]:
        """Losses at fixed noise levels with both conditions."""
        held_out = batches.held_out_pictures(64)
        context = self.network.encode(self._read(held_out.condition))
        return losses_at_levels(self.denoiser, held_out.pictures, context, self.config.loss, self.process)

    def preview(self, batches: DecoderBatches) -> Image.Image:
        """Held-out pictures, and below each the decoder's picture of its embedding (guidance 2, 16 steps).

        A distilled decoder draws as it is meant to, without guidance and in its own number of steps.
        """
        held_out = batches.held_out_pictures(16)
        x0 = held_out.pictures
        renderer = decoder_renderer(self.network, self.codec)
        learned = self.config.distillation
        denoise = renderer.denoiser(self._read(held_out.condition), guidance=2.0 if learned is None else 1.0)
        few = None if learned is None else learned.steps
        noise = Noise(range(len(x0))).fork("decoder")
        side = x0.shape[-1] * self.codec.factor
        steps = renderer.sample_from_noise(
            denoise,
            noise,
            size=side,
            steps=few or 16,
            sampler="dpmpp_2m" if few is None else "ddim",
            device=self.device,
        )
        x0, drawn = (self.codec.decode(state) for state in (x0, sample(steps)))
        rows = [row for i in range(0, len(x0), 8) for row in (x0[i : i + 8], drawn[i : i + 8])]
        return grid([to_image(picture) for row in rows for picture in row], columns=min(8, len(x0)))

    def _read(self, condition: DecoderCondition) -> DecoderCondition:
        """The condition with the captions as CLIP encodes them, for decoders that read those (Karlo)."""
        if self.reader is None or condition.tokens is None:
            return condition
        return replace(condition, text=self.reader.read(condition.tokens), empty=self.reader.empty)


def build(config: DecoderTraining, device: torch.device) -> Built:
    """The decoder, with the embedding, the scale and the vocabulary of the CLIP stage, and its data."""
    batches = DecoderBatches(config, device)
    model = _fitted(config.model, batches)
    network = Decoder(model).to(device)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    reader = ClipReader(batches.clip) if reads_text_encodings(model) else None
    codec = batches.images.codec
    if config.distillation is not None:
        assert config.init is not None
        taught = Decoder(model).to(device)
        take_weights(taught, config.init, "decoder")
        batches.teacher = Teacher(taught, config.distillation, codec, weights_digest(taught))
    return Built(
        DecoderTask(config, network, device, reader=reader, codec=codec, teacher=batches.teacher), batches
    )


def _fitted(config: DecoderConfig, batches: DecoderBatches) -> DecoderConfig:
    caption: CaptionConfig | None = None
    if config.caption is not None:
        tokenizer = batches.clip.tokenizer
        caption = replace(
            config.caption, vocabulary=tokenizer.vocabulary, context=tokenizer.context, end=tokenizer.end
        )
        if caption.tower == "clip":
            text = batches.clip.clip.config.text
            caption = replace(
                caption, width=text.width, layers=text.layers, heads=text.heads, activation=text.activation
            )
    batches.images.check(config)
    scale = 1.0 / batches.train_embeddings.square().mean().sqrt().item()
    return replace(config, embedding=batches.clip.embedding, embedding_scale=round(scale, 4), caption=caption)
