"""Stages of decoders of public families in latents: Stable Diffusion's under captions, Kandinsky's under image embeddings.

What the network reads is made by the family's own conditioner, as in sampling. A share of the samples loses the whole
condition: it reads what guidance leads away from, such as the empty caption.
"""

from abc import abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor, nn

from unclip.diffusion.losses import LossConfig, diffusion_loss
from unclip.diffusion.parametrization import Preconditioned
from unclip.diffusion.samplers import sample
from unclip.images import grid, to_image
from unclip.networks.kandinsky import KandinskyConfig, KandinskyDecoder
from unclip.networks.text_decoder import TextDecoder, TextDecoderConfig
from unclip.rng import Noise
from unclip.stages.conditioner import Condition
from unclip.stages.families import family_of
from unclip.stages.family import Family
from unclip.train.batches import SampleBatches
from unclip.train.config import ClipDependent
from unclip.train.cut_captions import report_cut_captions
from unclip.train.embed import TextRun
from unclip.train.source import evenly_spaced
from unclip.train.task import Built, Losses, Task, compiled
from unclip.train.tasks.embedded import EmbeddedBatches
from unclip.train.tasks.image_space import LatentSpace, offset
from unclip.train.tasks.levels import losses_at_levels

Context = TypeVar("Context")


@dataclass(frozen=True, kw_only=True)
class TextDecoderTraining(ClipDependent):
    """A run of a decoder of latents under captions. `clip` names the CLIP, or the model with the text tower."""

    stage: Literal["text_decoder"] = "text_decoder"
    model: TextDecoderConfig
    autoencoder: str = ""
    """Run folder of the autoencoder stage, or a model with an autoencoder."""
    loss: LossConfig = field(default_factory=LossConfig)
    dropout: float = 0.1
    """Share of samples that lose their condition: their caption becomes the empty one."""
    flip: bool = False
    """Whether half of the visits show the mirror image; captions that name sides become wrong."""
    noise_offset: float = 0.0
    """Standard deviation of a constant that is added to the noise of each channel, so that very dark and very bright pictures
    are learned."""

    def __post_init__(self) -> None:
        """Raise ValueError for a share out of range, and for decoders that read more than captions."""
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it is a share from 0 to 1, such as 0.1")
        if self.model.inpainting or self.model.embedding is not None:
            raise ValueError(
                "this stage trains decoders of captions alone: set model.inpainting to false and model.embedding to null"
            )


@dataclass(frozen=True, eq=False)
class CaptionedLatents:
    """Latents and the tokens of a caption each."""

    latents: Float[Tensor, "b c h w"]
    tokens: Int64[Tensor, "b n"]


class CaptionedLatentBatches(SampleBatches):
    """Latents by a frozen autoencoder, and captions."""

    def __init__(self, config: TextDecoderTraining, device: torch.device):
        self.text = TextRun(config, device)
        super().__init__(config, device)
        self.tokenizer_json, self.space = self.text.tokenizer_json, self.text.space
        sources = self.train, self.held_out
        self.images = LatentSpace(config.autoencoder, config, sources, device, flip=config.flip)
        self.latent_form = self.images.form
        report_cut_captions(self.train, self.text.tokenizer)

    def batch(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> CaptionedLatents:
        """The samples with these numbers, each with a caption drawn by `noise`."""
        indices = self.train.indices(numbers)
        tokens = self.text.tokens(self.train.captions(indices, noise))
        return CaptionedLatents(self.images.learned(self.train, indices, noise), tokens)

    def held_out_latents(self, count: int) -> CaptionedLatents:
        """At most `count` held-out pictures, each with its first caption."""
        indices = evenly_spaced(count, len(self.held_out))
        tokens = self.text.tokens(self.held_out.captions(indices))
        return CaptionedLatents(self.images.held_out(self.held_out, indices), tokens)


class FamilyTask(Task[Any]):
    """The diffusion loss of latents under what the family's conditioner makes of a batch, dropped for a share of it."""

    def __init__(self, config: Any, network: nn.Module, family: Family, batches: Any, device: torch.device):
        super().__init__()
        self.config, self.network, self.device, self.batches = config, network, device, batches
        self.renderer = family.renderer(network, batches.images.codec)
        self.process = config.model.process.build()
        self.denoiser = Preconditioned(network, self.process)
        self.training_denoiser = Preconditioned(compiled(config, device, network), self.process)

    @abstractmethod
    def condition(self, batch: Any) -> Condition:
        """What the decoder is asked to draw."""

    def forward(self, batch: Any, noise: Noise) -> Losses:
        """The loss of the batch, a share of the conditions dropped."""
        config, x0 = self.config, batch.latents
        drop = noise.fork("drop").uniform() < config.dropout
        contexts = self.renderer.conditioner(self.condition(batch), guided=True)
        context = where(drop.to(x0.device), contexts.null, contexts.condition)
        sigma = config.loss.density.sigma(noise.fork("sigma").uniform(), self.process)
        eps = offset(noise.fork("eps").normal(*x0.shape[1:]), noise, config.noise_offset)
        return Losses(diffusion_loss(self.training_denoiser, x0, eps, sigma, context, config.loss).mean(), {})

    def validate(self, batches: Any) -> dict[str, float]:
        """Losses at fixed noise levels, nothing dropped."""
        held_out = batches.held_out_latents(64)
        context = self.renderer.conditioner(self.condition(held_out), guided=False).condition
        return losses_at_levels(self.denoiser, held_out.latents, context, self.config.loss, self.process)

    def preview(self, batches: Any) -> Image.Image:
        """Held-out pictures by the autoencoder, and below each a drawing of its caption (guidance 3, 16 steps)."""
        held_out = batches.held_out_latents(16)
        x0, codec = held_out.latents, self.renderer.codec
        denoise = self.renderer.denoiser(self.condition(held_out), guidance=3.0)
        noise = Noise(range(len(x0))).fork("decoder")
        side = x0.shape[-1] * codec.factor
        steps = self.renderer.sample_from_noise(
            denoise, noise, size=side, steps=16, sampler="dpmpp_2m", device=self.device
        )
        real, drawn = (codec.decode(state) for state in (x0, sample(steps)))
        rows = [row for i in range(0, len(x0), 8) for row in (real[i : i + 8], drawn[i : i + 8])]
        return grid([to_image(picture) for row in rows for picture in row], columns=min(8, len(x0)))


class TextDecoderTask(FamilyTask):
    """The diffusion loss of latents under captions, some of them replaced by the empty one."""

    def condition(self, batch: CaptionedLatents) -> Condition:
        """The captions, and the empty one, as the text tower encodes them."""
        text: TextRun = self.batches.text
        return Condition(captions=text.read(batch.tokens), empty=text.empty)


@dataclass(frozen=True, kw_only=True)
class KandinskyDecoderTraining(ClipDependent):
    """A run of Kandinsky 2.2's decoder: latents under image embeddings. `clip` names the CLIP that gives them."""

    stage: Literal["kandinsky_decoder"] = "kandinsky_decoder"
    model: KandinskyConfig
    autoencoder: str = ""
    """Run folder of the autoencoder stage, or a model with an autoencoder."""
    loss: LossConfig = field(default_factory=LossConfig)
    dropout: float = 0.1
    """Share of samples whose embedding becomes that of a grey picture, which guidance leads away from."""
    flip: bool = False
    """Whether half of the visits show the mirror image."""
    noise_offset: float = 0.0
    """As in the text decoder's stage."""

    def __post_init__(self) -> None:
        """Raise ValueError for a share out of range, and for decoders that read more than embeddings."""
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it is a share from 0 to 1, such as 0.1")
        if self.model.inpainting or self.model.text is not None:
            raise ValueError(
                "this stage trains decoders of embeddings alone: set model.inpainting to false and model.text to null"
            )


@dataclass(frozen=True, eq=False)
class EmbeddedLatents:
    """Latents and the image embedding of each picture."""

    latents: Float[Tensor, "b c h w"]
    embeddings: Float[Tensor, "b d"]


class EmbeddedLatentBatches(EmbeddedBatches):
    """Latents by a frozen autoencoder, and embeddings by a frozen CLIP."""

    def __init__(self, config: KandinskyDecoderTraining, device: torch.device):
        super().__init__(config, device)
        sources = self.train, self.held_out
        self.images = LatentSpace(config.autoencoder, config, sources, device, flip=config.flip)
        self.latent_form = self.images.form

    def batch(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> EmbeddedLatents:
        """The samples with these numbers."""
        indices = self.train.indices(numbers)
        latents = self.images.learned(self.train, indices, noise)
        return EmbeddedLatents(latents, self.train.rows(self.train_embeddings, indices))

    def held_out_latents(self, count: int) -> EmbeddedLatents:
        """At most `count` held-out pictures."""
        indices = evenly_spaced(count, len(self.held_out))
        latents = self.images.held_out(self.held_out, indices)
        return EmbeddedLatents(latents, self.held_out.rows(self.held_out_embeddings, indices))


class KandinskyDecoderTask(FamilyTask):
    """The diffusion loss of latents under image embeddings, some of them replaced by a grey picture's."""

    def condition(self, batch: EmbeddedLatents) -> Condition:
        """The embeddings, and that of a grey picture."""
        return Condition(z_i=batch.embeddings, z_null=self.batches.clip.grey)


def where(drop: Bool[Tensor, " b"], null: Context, condition: Context) -> Context:
    """The contexts of a batch, rows of `null` where `drop` is True. Raises ValueError where only one has a part."""
    found: dict[str, Any] = {}
    for one in fields(condition):  # pyright: ignore[reportArgumentType]
        a, b = getattr(null, one.name), getattr(condition, one.name)
        if (a is None) != (b is None):
            raise ValueError(f"the null condition and the condition differ in whether they have {one.name!r}")
        if isinstance(b, Tensor):
            found[one.name] = torch.where(drop.reshape(-1, *(1,) * (b.ndim - 1)), a, b)
    return replace(condition, **found)  # pyright: ignore[reportArgumentType]


def build(config: TextDecoderTraining | KandinskyDecoderTraining, device: torch.device) -> Built:
    """The decoder, with the states of the text tower or the embeddings of the CLIP, and its data."""
    if isinstance(config, KandinskyDecoderTraining):
        return _build_kandinsky(config, device)
    batches = CaptionedLatentBatches(config, device)
    text = batches.text
    net = replace(config.model.net, context_width=text.width)
    model = replace(config.model, net=net, context=text.context)
    batches.images.check(model)
    network = TextDecoder(model).to(device)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    family = family_of(model, batches.images.run.config)
    return Built(TextDecoderTask(config, network, family, batches, device), batches)


def _build_kandinsky(config: KandinskyDecoderTraining, device: torch.device) -> Built:
    batches = EmbeddedLatentBatches(config, device)
    model = replace(config.model, embedding=batches.clip.embedding)
    batches.images.check(model)
    network = KandinskyDecoder(model).to(device)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    family = family_of(model, batches.images.run.config)
    return Built(KandinskyDecoderTask(config, network, family, batches, device), batches)
