"""GLIDE: text-conditional diffusion in pixels, and its upsampler (Nichol et al. 2021, arXiv 2112.10741).

A text transformer is part of each net. Its states are context tokens of the attentions, and its last state is added to the
time embedding. There is no image embedding.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import TextEncoding
from unclip.networks.unet import Unet, UnetConfig
from unclip.nn.attention import Readings
from unclip.nn.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class GlideTextConfig:
    """Shape of GLIDE's text transformer. Padding is the vocabulary's last token, which no caption holds."""

    vocabulary: int = 50257
    context: int = 128
    width: int = 512
    layers: int = 16
    heads: int = 8

    @property
    def padding(self) -> int:
        """Token behind the caption."""
        return self.vocabulary - 1


@dataclass(frozen=True, kw_only=True)
class _Glide:
    net: UnetConfig
    text: GlideTextConfig = field(default_factory=GlideTextConfig)
    inpainting: bool = False
    """Whether the net reads a hint: the known pixels and their mask, 4 channels."""
    process: ProcessConfig

    def _check(self, pictures: int) -> None:
        wanted = 3 * pictures + 4 * self.inpainting, 3 * (1 + self.process.learned_variance)
        if (self.net.in_channels, self.net.out_channels) != wanted:
            raise ValueError(
                f"net.in_channels and net.out_channels must be {wanted[0]} and {wanted[1]} for this net, not "
                f"{self.net.in_channels} and {self.net.out_channels}"
            )
        if (self.net.context_width, self.net.vector_width) != (self.text.width, self.net.embedding_width):
            raise ValueError(
                "a GLIDE net needs context_width, the text's width, and vector_width, its embedding_width"
            )


@dataclass(frozen=True, kw_only=True)
class GlideConfig(_Glide):
    """The base: pictures of `size` pixels from a caption."""

    kind: Literal["decoder_glide"] = "decoder_glide"
    size: int = 64

    def __post_init__(self) -> None:
        """Raise ValueError for a net that does not fit the pictures and conditions."""
        self._check(1)


@dataclass(frozen=True, kw_only=True)
class GlideUpsamplerConfig(_Glide):
    """The upsampler: pictures of `high_size` pixels from those of `low_size` and a caption."""

    kind: Literal["upsampler_glide"] = "upsampler_glide"
    low_size: int = 64
    high_size: int = 256

    @property
    def factor(self) -> int:
        """How many times larger the pictures become."""
        return self.high_size // self.low_size

    def __post_init__(self) -> None:
        """Raise ValueError for a net that does not fit the pictures and conditions."""
        self._check(2)


@dataclass(frozen=True, eq=False)
class GlideCondition:
    """What to draw: tokens of captions. Padding alone stands for no caption."""

    tokens: Int[Tensor, "b n"]
    hint: Float[Tensor, "b 4 h w"] | None = None
    """[known pixels, mask], mask 1 = known; None leaves all to be drawn."""
    low: Float[Tensor, "b 3 lh lw"] | None = None
    """Small pictures in [-1, 1], for the upsampler."""


@dataclass(frozen=True, eq=False)
class GlideContext:
    """A condition as the net reads it; made once a picture and used at every step."""

    vector: Float[Tensor, "b e"]
    tokens: Float[Tensor, "b m f"]
    hint: Float[Tensor, "b 4 h w"] | None = None
    low: Float[Tensor, "b 3 lh lw"] | None = None
    readings: Readings | None = None
    """What the net's attentions made of the tokens, where that is known beforehand."""


class GlideText(nn.Module):
    """Tokens to states; positions behind the caption hold a learned state of their own, which later layers do see."""

    def __init__(self, config: GlideTextConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(config.context, config.width))
        self.padding = nn.Parameter(0.02 * torch.randn(config.context, config.width))
        self.transformer = Transformer(config.width, config.layers, config.heads)
        self.norm_out = nn.LayerNorm(config.width)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n w"]:
        """States of captions.

        Raises ValueError for captions of another length than the config's context.
        """
        if tokens.shape[1] != self.config.context:
            raise ValueError(
                f"captions have {tokens.shape[1]} tokens, this text encoder reads {self.config.context}"
            )
        inside = tokens != self.config.padding
        states = torch.where(inside[..., None], self.tokens(tokens) + self.positions, self.padding)
        return self.norm_out(self.transformer(states))


class Glide(nn.Module):
    """A U-Net with its text transformer: the base or the upsampler, with or without inpainting."""

    def __init__(self, config: GlideConfig | GlideUpsamplerConfig):
        super().__init__()
        self.config = config
        self.net = Unet(config.net)
        self.text = GlideText(config.text)
        self.text_vector = nn.Linear(config.text.width, config.net.embedding_width)

    def encode_text(self, tokens: Int[Tensor, "b n"]) -> TextEncoding:
        """States of captions, the last of which is their embedding, and True where a token counts."""
        states = self.text(tokens)
        return TextEncoding(states[:, -1], states, tokens != self.config.text.padding)

    def encode(self, condition: GlideCondition) -> GlideContext:
        """Encode captions and resize small pictures. Raises ValueError where the condition does not fit the config."""
        if condition.hint is not None and not self.config.inpainting:
            raise ValueError("this net was not trained to inpaint: it reads no hint")
        low, upsampler = condition.low, isinstance(self.config, GlideUpsamplerConfig)
        if (low is not None) != upsampler:
            raise ValueError(
                "an upsampler needs small pictures" if upsampler else "the base reads no small pictures"
            )
        if low is not None and isinstance(self.config, GlideUpsamplerConfig):
            # Trained on pictures of 8 bits.
            low = ((low + 1) * 127.5).round() / 127.5 - 1
            factor = float(self.config.factor)
            low = F.interpolate(low, scale_factor=factor, mode="bilinear", align_corners=False)
        states = self.text(condition.tokens)
        vector = self.text_vector(states[:, -1])
        context = GlideContext(vector, states, condition.hint, low)
        return context if torch.is_grad_enabled() else replace(context, readings=self.net.read(states))

    def forward(
        self, x: Float[Tensor, "b c h w"], label: Float[Tensor, " b"], context: GlideContext
    ) -> Float[Tensor, "b out h w"]:
        """Scaled noisy pictures, labels and `encode`d conditions -> the raw prediction, float32."""
        inputs = [x]
        if self.config.inpainting:
            hint = context.hint
            inputs.append(x.new_zeros(len(x), 4, *x.shape[2:]) if hint is None else hint.to(x.dtype))
        if context.low is not None:
            inputs.append(context.low.to(x.dtype))
        tokens = context.tokens if context.readings is None else context.readings
        return self.net(torch.cat(inputs, dim=1), label, context.vector, tokens)


class GlideUpsampler(Glide):
    """The upsampler as a kind of its own."""

    def __init__(self, config: GlideUpsamplerConfig):
        super().__init__(config)
