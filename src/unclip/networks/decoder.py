"""The decoder: pictures from a CLIP image embedding and, optionally, the caption (arXiv 2204.06125, section 2.1).

z_i is projected and added to the time embedding, and projected to a few tokens that follow the caption's, as encoded by
GLIDE's text transformer. The conditions are the same for either net: a U-Net or a transformer on patches.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import TextEncoding
from unclip.networks.clip_caption import CaptionContext, ClipCaption
from unclip.networks.latent_unet import LatentUnetConfig, build_unet
from unclip.networks.patch_transformer import PatchTransformer, PatchTransformerConfig
from unclip.networks.unet import Unet, UnetConfig
from unclip.nn.attention import Readings
from unclip.nn.transformer import Activation, Transformer


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """GLIDE's text transformer (Nichol et al. 2021, section 4), trained with the decoder; or CLIP's text tower (Karlo).

    With `tower` "clip", the sizes are those of CLIP's tower, whose encodings the decoder reads, and `start` is the token
    that captions begin with.
    """

    vocabulary: int = 49408
    context: int = 77
    end: int = 49407
    width: int = 512
    layers: int = 6
    heads: int = 8
    activation: Activation = "gelu"
    tower: Literal["glide", "clip"] = "glide"
    start: int = 49406


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The net, the process it was trained on, and its conditions."""

    kind: Literal["decoder"] = "decoder"
    net: UnetConfig | PatchTransformerConfig | LatentUnetConfig
    size: int = 64
    """Side of the pictures in pixels."""
    channels: int = 3
    """Channels of what is drawn: 3 for pixels, those of the autoencoder's latents otherwise."""
    factor: int = 1
    """Pixels for each element of what is drawn, along each side: 1 for pixels, otherwise the autoencoder's factor."""
    embedding: int = 512
    embedding_scale: float = 1.0
    """Multiplied with z_i before the projections, to bring it to unit variance."""
    image_tokens: int = 4
    caption: CaptionConfig | None = None
    inpainting: bool = False
    """Whether the net reads a hint besides the noisy picture: the masked picture and its mask, one more channel."""
    augmentation: int = 0
    """Numbers that tell how a drawing was moved before it was learned, added to the time embedding; all 0 in sampling
    (Karras et al. 2022, appendix F.2)."""
    process: ProcessConfig = ProcessConfig(parametrization="eps", schedule="cosine", learned_variance=True)


@dataclass(frozen=True, eq=False)
class DecoderCondition:
    """What to draw. `keep_*` are False where a condition is dropped; `hint` is [masked picture, mask], mask 1 = kept.
    `augmentation` holds how a picture was moved; None means not at all."""

    image_embedding: Float[Tensor, "b d"]
    tokens: Int[Tensor, "b n"] | None
    keep_image: Bool[Tensor, " b"]
    keep_caption: Bool[Tensor, " b"]
    hint: Float[Tensor, "b k h w"] | None = None
    augmentation: Float[Tensor, "b a"] | None = None
    text: TextEncoding | None = None
    """Captions as CLIP's text tower encodes them, b rows; read in place of `tokens` with `tower` "clip"."""
    empty: TextEncoding | None = None
    """The empty caption's encoding, one row; it stands for dropped captions with `tower` "clip"."""

    def null(self) -> "DecoderCondition":
        """The same batch without embedding and caption; a hint stays."""
        nothing = torch.zeros_like(self.keep_image)
        return replace(self, keep_image=nothing, keep_caption=nothing)

    def drop(self, image: Bool[Tensor, " b"], caption: Bool[Tensor, " b"]) -> "DecoderCondition":
        """Without the embedding where `image` is True and without the caption where `caption` is."""
        return replace(self, keep_image=self.keep_image & ~image, keep_caption=self.keep_caption & ~caption)


@dataclass(frozen=True, eq=False)
class DecoderContext:
    """A condition as the net reads it; made once a picture and used at every step."""

    vector: Float[Tensor, "b e"]
    tokens: Float[Tensor, "b m f"]
    hint: Float[Tensor, "b k h w"] | None = None
    mask: Bool[Tensor, "b m"] | None = None
    """True where a token counts; None: all do."""
    readings: Readings | None = None
    """What the net's attentions made of the tokens, where that is known beforehand."""


class CaptionEncoder(nn.Module):
    """Tokens to states; the padding, and all of a dropped caption, is a learned state of its own (GLIDE)."""

    def __init__(self, config: CaptionConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(config.context, config.width))
        self.padding = nn.Parameter(0.02 * torch.randn(config.context, config.width))
        self.transformer = Transformer(
            config.width, config.layers, config.heads, activation=config.activation
        )
        self.norm_out = nn.LayerNorm(config.width)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens: Int[Tensor, "b n"], keep: Bool[Tensor, " b"]) -> Float[Tensor, "b n w"]:
        """Tokens of the config's context -> states; `keep` is False for captions to be dropped."""
        if tokens.shape[1] != self.config.context:
            raise ValueError(
                f"captions have {tokens.shape[1]} tokens, this decoder reads {self.config.context}"
            )
        end = (tokens == self.config.end).int().argmax(dim=1)
        inside = (torch.arange(tokens.shape[1], device=tokens.device) <= end[:, None]) & keep[:, None]
        states = torch.where(inside[..., None], self.tokens(tokens) + self.positions, self.padding)
        return self.norm_out(self.transformer(states))


class Decoder(nn.Module):
    """A net and the projections that turn a `DecoderCondition` into what it reads.

    Raises ValueError for a net that does not fit the pictures, the hint or the conditions.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        _check(config)
        if isinstance(config.net, UnetConfig):
            self.net, vector_width = build_unet(config.net), config.net.vector_width
        else:
            self.net, vector_width = PatchTransformer(config.net), config.net.width
        context_width = config.net.context_width
        if vector_width is None or context_width is None:
            raise ValueError(
                "a decoder's net needs context_width (and a U-Net vector_width) to be conditioned"
            )
        self.image_vector = nn.Linear(config.embedding, vector_width)
        self.image_tokens = nn.Linear(config.embedding, config.image_tokens * context_width)
        self.null_image = nn.Parameter(torch.zeros(config.embedding))
        self.augmentation: nn.Linear | None = None
        if config.augmentation:
            self.augmentation = nn.Linear(config.augmentation, vector_width, bias=False)
            nn.init.zeros_(self.augmentation.weight)
        self.caption: CaptionEncoder | ClipCaption | None = None
        self.caption_project: nn.Linear | None = None
        caption = config.caption
        if caption is not None and caption.tower == "clip":
            self.caption = ClipCaption(
                caption.width, config.embedding, context_width=context_width, vector_width=vector_width
            )
        elif caption is not None:
            self.caption = CaptionEncoder(caption)
            self.caption_project = nn.Linear(caption.width, context_width)

    def encode(self, condition: DecoderCondition) -> DecoderContext:
        """Project the conditions. Raises ValueError where a part of the condition does not fit the config."""
        if condition.hint is not None and not self.config.inpainting:
            raise ValueError("this decoder was not trained to inpaint: it reads no hint")
        if condition.image_embedding.shape[1] != self.config.embedding:
            raise ValueError(
                f"the image embedding has {condition.image_embedding.shape[1]} channels, this decoder reads "
                f"{self.config.embedding}: take the CLIP that it was trained with"
            )
        z = condition.image_embedding * self.config.embedding_scale
        z = torch.where(condition.keep_image[:, None], z, self.null_image)
        tokens = rearrange(self.image_tokens(z), "b (k f) -> b k f", k=self.config.image_tokens)
        vector = self.image_vector(z)
        if condition.augmentation is not None:
            if self.augmentation is None:
                raise ValueError("this decoder reads no augmentation: set augmentation in its config")
            vector = vector + self.augmentation(condition.augmentation)
        if self.caption is None:
            return self._read(DecoderContext(vector, tokens, condition.hint))
        if isinstance(self.caption, ClipCaption):
            caption = self._caption(self.caption, condition)
            mask = torch.cat([caption.mask, caption.mask.new_ones(tokens.shape[:2])], dim=1)
            tokens = torch.cat([caption.tokens, tokens], dim=1)
            return self._read(DecoderContext(vector + caption.vector, tokens, condition.hint, mask))
        if condition.tokens is None:
            raise ValueError(
                "this decoder reads captions: give tokens, and drop them with keep_caption=False"
            )
        assert self.caption_project is not None
        caption = self.caption_project(self.caption(condition.tokens, condition.keep_caption))
        tokens = torch.cat([caption, tokens], dim=1)
        return self._read(DecoderContext(vector, tokens, condition.hint))

    def _caption(self, projections: ClipCaption, condition: DecoderCondition) -> CaptionContext:
        """Context of the caption from CLIP's encodings."""
        config, empty = self.config.caption, condition.empty
        if empty is None or (condition.text is None and bool(condition.keep_caption.any())):
            raise ValueError(
                "this decoder reads captions as CLIP encodes them: give text, and empty for dropped captions"
            )
        text = empty if condition.text is None else condition.text
        assert config is not None
        for encoding in (text, empty):
            if encoding.states.shape[1:] != (config.context, config.width):
                raise ValueError(
                    f"the caption's states are {tuple(encoding.states.shape[1:])} (tokens, width), this decoder reads "
                    f"{(config.context, config.width)}: take the CLIP that it was trained with"
                )
        return projections(text, condition.keep_caption, empty)

    def _read(self, context: DecoderContext) -> DecoderContext:
        """In sampling the tokens are the same at every step; in training they are read once in any case."""
        if torch.is_grad_enabled() or not isinstance(self.net, Unet):
            return context
        return replace(context, readings=self.net.read(context.tokens))

    def forward(
        self, x: Float[Tensor, "b c h w"], label: Float[Tensor, " b"], context: DecoderContext
    ) -> Float[Tensor, "b out h w"]:
        """Scaled noisy pictures, labels and `encode`d conditions -> the raw prediction, float32."""
        if self.config.inpainting:
            hint = context.hint
            if hint is None:
                hint = x.new_zeros(len(x), self.config.channels + 1, *x.shape[2:])
            hint = hint.to(x.dtype)
            x = torch.cat([x, hint], dim=1)
        mask = {} if context.mask is None else {"context_mask": context.mask}
        tokens = context.tokens if context.readings is None else context.readings
        return self.net(x, label, context.vector, tokens, **mask)


def _check(config: DecoderConfig) -> None:
    clip = config.caption is not None and config.caption.tower == "clip"
    if clip and not isinstance(config.net, UnetConfig):
        raise ValueError("CLIP's text tower comes with a mask of its tokens, which only a U-Net reads")
    if config.size % config.factor:
        raise ValueError(f"the decoder's size {config.size} is not a multiple of its factor {config.factor}")
    side = config.size // config.factor
    if isinstance(config.net, PatchTransformerConfig) and config.net.size != side:
        whole = "" if config.factor == 1 else f" {config.size} / {config.factor}"
        raise ValueError(f"net.size is {config.net.size}, but the decoder's size is{whole or f' {side}'}")
    wanted_in = config.channels + (config.channels + 1) * config.inpainting
    wanted_out = config.channels * (1 + config.process.learned_variance)
    if (config.net.in_channels, config.net.out_channels) != (wanted_in, wanted_out):
        raise ValueError(
            f"net.in_channels and net.out_channels must be {wanted_in} and {wanted_out} for this decoder, "
            f"not {config.net.in_channels} and {config.net.out_channels}"
        )
