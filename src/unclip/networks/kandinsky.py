"""Kandinsky's decoder: latents of a picture from a CLIP image embedding (Razzhigaev et al. 2023, arXiv 2310.03502).

z_i is projected to a vector beside the time embedding and to tokens, which the attentions of the U-Net read. Version 2.2
reads nothing else; version 2.1 reads a multilingual encoding of the caption too.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from unclip.diffusion.conventions import GridConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import TextEncoding
from unclip.networks.unet import Unet, UnetConfig
from unclip.nn.attention import Readings


@dataclass(frozen=True, kw_only=True)
class KandinskyTextConfig:
    """What version 2.1 reads of a caption: states of `width`, of `context` tokens, and an embedding."""

    width: int = 1024
    embedding: int = 768
    context: int = 77


@dataclass(frozen=True, kw_only=True)
class KandinskyConfig:
    """The net, the process it was trained on, and its conditions."""

    kind: Literal["decoder_kandinsky"] = "decoder_kandinsky"
    net: UnetConfig
    channels: int = 4
    """Channels of the latents; the net predicts as many numbers for their variance, which few samplers use."""
    size: int = 512
    """Side of the pictures in pixels, unless another is asked for."""
    embedding: int = 1280
    image_tokens: int = 32
    text: KandinskyTextConfig | None = None
    """None for version 2.2."""
    inpainting: bool = False
    """Whether the net reads a hint besides the noisy latents: the known latents and their mask."""
    process: ProcessConfig
    grid: GridConfig | None = None
    """How the public pipeline spaces its steps; None spaces them evenly over the table."""
    clip: float | None = None
    """Range that clean estimates of the latents are clamped to; None leaves them."""
    threshold: tuple[float, float] | None = None
    """Quantile and largest range of dynamic thresholding (arXiv 2205.11487) of the estimates, in place of `clip`."""

    def __post_init__(self) -> None:
        """Raise ValueError for a net that does not fit the latents and conditions."""
        net = self.net
        wanted = self.channels + (self.channels + 1) * self.inpainting, 2 * self.channels
        if (net.in_channels, net.out_channels) != wanted:
            raise ValueError(
                f"net.in_channels and net.out_channels must be {wanted[0]} and {wanted[1]} for this decoder, not "
                f"{net.in_channels} and {net.out_channels}"
            )
        if net.context_width is None or net.vector_width != net.embedding_width:
            raise ValueError(
                "a Kandinsky net needs context_width, and a vector_width that is its embedding_width"
            )


@dataclass(frozen=True, eq=False)
class KandinskyCondition:
    """What to draw. `hint` is [known latents, mask], mask 1 = known; None leaves all to be drawn."""

    image_embedding: Float[Tensor, "b d"]
    text: TextEncoding | None = None
    hint: Float[Tensor, "b k h w"] | None = None


@dataclass(frozen=True, eq=False)
class KandinskyContext:
    """A condition as the net reads it; made once a picture and used at every step."""

    vector: Float[Tensor, "b e"]
    tokens: Float[Tensor, "b m f"]
    hint: Float[Tensor, "b k h w"] | None = None
    readings: Readings | None = None
    """What the net's attentions made of the tokens, where that is known beforehand."""


class KandinskyDecoder(nn.Module):
    """A U-Net and the projections that turn a `KandinskyCondition` into what it reads."""

    def __init__(self, config: KandinskyConfig):
        super().__init__()
        self.config = config
        self.net = Unet(config.net)
        width, vector = config.net.context_width, config.net.embedding_width
        assert width is not None
        self.image_vector = nn.Linear(config.embedding, vector)
        self.image_tokens = nn.Linear(config.embedding, config.image_tokens * width)
        text = config.text
        self.tokens_norm: nn.LayerNorm | None = None
        self.vector_norm = nn.LayerNorm(vector)
        """Of z_i's vector in version 2.2, of the caption's in version 2.1."""
        self.text_vector: nn.Linear | None = None
        self.text_tokens: nn.Linear | None = None
        if text is None:
            self.tokens_norm = nn.LayerNorm(width)
        else:
            self.text_vector = nn.Linear(text.embedding, vector)
            self.text_tokens = nn.Linear(text.width, width)

    def encode(self, condition: KandinskyCondition) -> KandinskyContext:
        """Project the conditions. Raises ValueError where a part of the condition does not fit the config."""
        config, z_i, text = self.config, condition.image_embedding, condition.text
        if z_i.shape[1] != config.embedding:
            raise ValueError(
                f"the image embedding has {z_i.shape[1]} channels, this decoder reads {config.embedding}: take the CLIP "
                "that it was trained with"
            )
        if condition.hint is not None and not config.inpainting:
            raise ValueError("this decoder was not trained to inpaint: it reads no hint")
        kind = self.image_vector.weight.dtype
        z_i = z_i.to(kind)
        tokens = rearrange(self.image_tokens(z_i), "b (k f) -> b k f", k=config.image_tokens)
        vector = self.image_vector(z_i)
        if self.tokens_norm is not None:
            vector, tokens = self.vector_norm(vector), self.tokens_norm(tokens)
        elif text is None:
            raise ValueError("this decoder reads captions: give text, of an empty caption for none")
        elif self.text_vector is not None and self.text_tokens is not None:
            vector = vector + self.vector_norm(self.text_vector(text.embedding.to(kind)))
            tokens = torch.cat([tokens, self.text_tokens(text.states.to(kind))], dim=1)
        context = KandinskyContext(vector, tokens, condition.hint)
        # In sampling the tokens are the same at every step; in training they are read once in any case.
        return context if torch.is_grad_enabled() else replace(context, readings=self.net.read(tokens))

    def forward(
        self, x: Float[Tensor, "b c h w"], label: Float[Tensor, " b"], context: KandinskyContext
    ) -> Float[Tensor, "b out h w"]:
        """Scaled noisy latents, labels and `encode`d conditions -> the raw prediction, float32.

        It has the variance's channels only if the process has a learned variance.
        """
        if self.config.inpainting:
            hint = x.new_zeros(len(x), self.config.channels + 1, *x.shape[2:])
            x = torch.cat([x, hint if context.hint is None else context.hint.to(x.dtype)], dim=1)
        tokens = context.tokens if context.readings is None else context.readings
        predicted = self.net(x, label, context.vector, tokens)
        return predicted if self.config.process.learned_variance else predicted[:, : self.config.channels]
