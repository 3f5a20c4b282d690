"""Stable Diffusion's decoder: latents under the states of a text tower, and of Stable unCLIP, under an image embedding too.

z_i is standardised, noised to a level, and joined with the level's sinusoids; two layers bring it to the time embedding.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unclip.diffusion.conventions import GridConfig
from unclip.diffusion.noise import NoiseTable
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.latent_unet import LatentUnet, LatentUnetConfig
from unclip.nn.attention import Readings
from unclip.nn.embeddings import timestep_embedding


@dataclass(frozen=True, kw_only=True)
class TextDecoderConfig:
    """The net, the process it was trained on, and its conditions."""

    kind: Literal["text_decoder"] = "text_decoder"
    net: LatentUnetConfig
    size: int = 512
    """Side in pixels of the pictures that it was trained on; it draws other multiples of 8 too."""
    channels: int = 4
    """Channels of the latent."""
    context: int = 77
    """Tokens of a caption."""
    embedding: int | None = None
    """Width of z_i for Stable unCLIP; None for a decoder of captions alone."""
    noise_levels: int = 1000
    """Length of the cosine schedule that z_i is noised on."""
    inpainting: bool = False
    """Whether the net reads a hint besides the latent: the mask (1 = to draw) and the masked picture's latent."""
    process: ProcessConfig = ProcessConfig(parametrization="eps", schedule="scaled_linear")
    clip_range: float | None = None
    """Range that clean estimates of the latent are clamped to; None for none, as Stable Diffusion has it."""
    grid: GridConfig | None = None
    """How the public pipeline spaces its steps; None spaces them evenly over the table."""

    def __post_init__(self) -> None:
        """Raise ValueError for a net that does not fit the latent, the hint or the embedding."""
        wanted = self.channels + (self.channels + 1) * self.inpainting
        out = self.channels * (1 + self.process.learned_variance)
        if (self.net.in_channels, self.net.out_channels) != (wanted, out):
            raise ValueError(
                f"net.in_channels and net.out_channels must be {wanted} and {out} for this decoder, not "
                f"{self.net.in_channels} and {self.net.out_channels}"
            )
        vector = None if self.embedding is None else 2 * self.embedding
        if self.net.vector_width != vector:
            raise ValueError(
                f"net.vector_width is {self.net.vector_width}, an embedding of {self.embedding} needs {vector}: twice its "
                "width"
            )


@dataclass(frozen=True, eq=False)
class TextDecoderContext:
    """What the net reads; made once a picture and used at every step."""

    tokens: Float[Tensor, "b m f"]
    """The text tower's states."""
    vector: Float[Tensor, "b v"] | None = None
    hint: Float[Tensor, "b k h w"] | None = None
    readings: Readings | None = None
    """What the net's attentions made of the tokens, where that is known beforehand."""


class TextDecoder(nn.Module):
    """A U-Net and, for Stable unCLIP, the mean and standard deviation of image embeddings."""

    def __init__(self, config: TextDecoderConfig):
        super().__init__()
        self.config = config
        self.net = LatentUnet(config.net)
        if config.embedding is not None:
            self.register_buffer("embedding_mean", torch.zeros(config.embedding))
            self.register_buffer("embedding_std", torch.ones(config.embedding))

    def vector(
        self, z_i: Float[Tensor, "b d"], level: int = 0, noise: Float[Tensor, "b d"] | None = None
    ) -> Float[Tensor, "b two_d"]:
        """z_i noised to `level` and the level's sinusoids. Without `noise`, the mean of that.

        Raises ValueError for an embedding of another width, and for a level beyond the schedule.
        """
        config = self.config
        if config.embedding != z_i.shape[1]:
            raise ValueError(
                f"the image embedding has {z_i.shape[1]} channels, this decoder reads {config.embedding}: take the CLIP "
                "that it was trained with"
            )
        if not 0 <= level < config.noise_levels:
            raise ValueError(f"the noise level {level} is not one of 0 to {config.noise_levels - 1}")
        mean, std = self.get_buffer("embedding_mean"), self.get_buffer("embedding_std")
        abar = float(NoiseTable.cosine(config.noise_levels).abar[level])
        noised = abar**0.5 * (z_i - mean) / std
        if noise is not None:
            noised = noised + (1 - abar) ** 0.5 * noise.to(noised)
        labels = torch.full((len(z_i),), float(level), device=z_i.device)
        return torch.cat([noised * std + mean, timestep_embedding(labels, z_i.shape[1])], dim=1)

    def encode(self, context: TextDecoderContext) -> TextDecoderContext:
        """The context with the net's readings of its tokens, in sampling; in training, as it is.

        Raises ValueError where a part of it does not fit the config.
        """
        config = self.config
        if context.tokens.shape[1:] != (config.context, config.net.context_width):
            raise ValueError(
                f"the caption's states are {tuple(context.tokens.shape[1:])} (tokens, width), this decoder reads "
                f"{(config.context, config.net.context_width)}: take the text encoder that it was trained with"
            )
        if context.hint is not None and not config.inpainting:
            raise ValueError("this decoder was not trained to inpaint: it reads no hint")
        if torch.is_grad_enabled():
            return context
        return replace(context, readings=self.net.read(context.tokens))

    def forward(
        self, x: Float[Tensor, "b c h w"], label: Float[Tensor, " b"], context: TextDecoderContext
    ) -> Float[Tensor, "b out h w"]:
        """Scaled noisy latents, labels and `encode`d conditions -> the raw prediction, float32."""
        if self.config.inpainting:
            hint = context.hint
            if hint is None:
                # Nothing is known: the mask says so, and the masked picture is empty.
                hint = torch.cat([torch.ones_like(x[:, :1]), torch.zeros_like(x)], dim=1)
            x = torch.cat([x, hint.to(x)], dim=1)
        tokens = context.tokens if context.readings is None else context.readings
        return self.net(x, label, context.vector, tokens)
