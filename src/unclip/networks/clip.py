"""CLIP: a picture tower and a text tower that meet in one embedding space (Radford et al. 2021)."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unclip.nn.transformer import Activation, Transformer


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The picture tower: a ViT on patches; `pool` takes the class token or the mean of the patches."""

    size: int = 64
    patch: int = 8
    width: int = 256
    layers: int = 6
    heads: int = 4
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    pool: Literal["class", "mean"] = "class"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Mean and standard deviation of the channels in [0, 1], taken off before the first layer."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resize: Literal["shortest", "squash"] = "shortest"
    """How a picture becomes a square: its middle square at `size`, or all of it without regard to its shape."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower: a causal transformer, pooled at the first `end` token."""

    vocabulary: int = 49408
    context: int = 77
    end: int = 49407
    width: int = 256
    layers: int = 4
    heads: int = 4
    activation: Activation = "gelu"


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Both towers and the space they share."""

    kind: Literal["clip"] = "clip"
    embedding: int = 512
    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    normalize: bool = True
    """Whether `encode_*` return unit vectors. Karlo's prior and decoder want them as they are."""
    loss: Literal["contrastive", "sigmoid"] = "contrastive"
    towers: Literal["both", "text", "image"] = "both"
    """Some public weights come without one of the towers: then only `encode_text` or `encode_image` is there."""


class TextEncoding(NamedTuple):
    """What the text tower says of a batch of captions."""

    embedding: Float[Tensor, "b d"]
    states: Float[Tensor, "b n w"]
    """The last hidden states, after the final norm."""
    mask: Bool[Tensor, "b n"]
    """True from the start token to the end token, False at padding."""


class VisionTower(nn.Module):
    """A ViT (Dosovitskiy et al. 2020) with CLIP's norm before the first block."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: VisionConfig, embedding: int):
        super().__init__()
        if config.size % config.patch:
            raise ValueError(f"picture size {config.size} is not a multiple of the patch {config.patch}")
        self.config = config
        tokens = (config.size // config.patch) ** 2 + 1
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.class_token = nn.Parameter(config.width**-0.5 * torch.randn(config.width))
        self.positions = nn.Parameter(config.width**-0.5 * torch.randn(tokens, config.width))
        self.norm_in = nn.LayerNorm(config.width)
        self.transformer = Transformer(
            config.width,
            config.layers,
            config.heads,
            mlp_ratio=config.mlp_ratio,
            activation=config.activation,
        )
        self.norm_out = nn.LayerNorm(config.width)
        self.project = nn.Linear(config.width, embedding, bias=False)
        nn.init.normal_(self.project.weight, std=config.width**-0.5)
        # Kept out of the weights: they are part of the config.
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.std)[:, None, None], persistent=False)

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Pictures in [-1, 1] of the config's size -> embeddings, not normalised."""
        size = self.config.size
        if pictures.shape[-2:] != (size, size):
            raise ValueError(
                f"CLIP reads {size} x {size} pixels, got {tuple(pictures.shape[-2:])}; resize first"
            )
        x = ((pictures + 1) / 2 - self.mean) / self.std
        x = rearrange(self.patches(x), "b d h w -> b (h w) d")
        x = torch.cat([repeat(self.class_token, "d -> b 1 d", b=len(x)).to(x.dtype), x], dim=1)
        x = self.transformer(self.norm_in(x + self.positions))
        pooled = x[:, 0] if self.config.pool == "class" else x[:, 1:].mean(1)
        return self.project(self.norm_out(pooled))


class TextTower(nn.Module):
    """A causal transformer whose state at the end token is the caption's embedding."""

    def __init__(self, config: TextConfig, embedding: int | None):
        """Without an `embedding` width there is no projection, and the state at the end token is the embedding."""
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(0.01 * torch.randn(config.context, config.width))
        self.transformer = Transformer(
            config.width, config.layers, config.heads, activation=config.activation, causal=True
        )
        self.norm_out = nn.LayerNorm(config.width)
        self.project = nn.Identity() if embedding is None else nn.Linear(config.width, embedding, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        if isinstance(self.project, nn.Linear):
            nn.init.normal_(self.project.weight, std=config.width**-0.5)

    def forward(self, tokens: Int[Tensor, "b n"]) -> TextEncoding:
        """Tokens of the config's context, each row with an end token -> embedding, states, mask."""
        if tokens.shape[1] != self.config.context:
            raise ValueError(
                f"captions have {tokens.shape[1]} tokens, this text tower reads {self.config.context}"
            )
        # OpenAI's CLIP lets the causal mask alone hide the padding: the end token never sees what follows it.
        x = self.norm_out(self.transformer(self.tokens(tokens) + self.positions))
        end = (tokens == self.config.end).int().argmax(dim=1)
        embedding = self.project(x[torch.arange(len(x), device=x.device), end])
        mask = torch.arange(tokens.shape[1], device=tokens.device) <= end[:, None]
        return TextEncoding(embedding, x, mask)


class Clip(nn.Module):
    """Two towers, a learned temperature, and the loss that pulls a picture and its caption together."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config = config
        self.vision = None if config.towers == "text" else VisionTower(config.vision, config.embedding)
        self.text = None if config.towers == "image" else TextTower(config.text, config.embedding)
        sigmoid = config.loss == "sigmoid"
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0 if sigmoid else 1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if sigmoid else None

    def encode_image(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Pictures in [-1, 1] -> image embeddings z_i, of unit length where the config says so.

        Raises ValueError for a CLIP that came without its picture tower.
        """
        if self.vision is None:
            raise ValueError(
                "this CLIP came without its picture tower, so it cannot read pictures: take one that has both"
            )
        embedding = self.vision(pictures).float()
        return nn.functional.normalize(embedding, dim=-1) if self.config.normalize else embedding

    def encode_text(self, tokens: Int[Tensor, "b n"]) -> TextEncoding:
        """Tokens -> text embeddings z_t (as `encode_image`), hidden states and mask.

        Raises ValueError for a CLIP that came without its text tower.
        """
        if self.text is None:
            raise ValueError(
                "this CLIP came without its text tower, so it cannot read captions: take one that has both"
            )
        encoding = self.text(tokens)
        embedding = encoding.embedding.float()
        if self.config.normalize:
            embedding = nn.functional.normalize(embedding, dim=-1)
        return encoding._replace(embedding=embedding)

    def loss(
        self,
        image_embedding: Float[Tensor, "b d"],
        text_embedding: Float[Tensor, "b d"],
        same: Bool[Tensor, "b b"] | None = None,
    ) -> Float[Tensor, ""]:
        """The batch's loss: symmetric cross-entropy (CLIP, figure 3) or pairwise sigmoids (SigLIP, algorithm 1).

        `same[i, j]` marks pairs of samples whose captions say the same: they are not negatives of each other.
        """
        image = nn.functional.normalize(image_embedding.float(), dim=-1)
        text = nn.functional.normalize(text_embedding.float(), dim=-1)
        # In bfloat16, a logit near the largest scale of 100 would be rounded to a multiple of 0.5.
        with torch.autocast(image.device.type, enabled=False):
            logits = self.logit_scale.float().exp().clamp(max=100.0) * image @ text.T
        paired = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        ignored = torch.zeros_like(paired) if same is None else same & ~paired
        if self.logit_bias is not None:
            signs = 2 * paired.float() - 1
            pairs = -nn.functional.logsigmoid(signs * (logits + self.logit_bias))
            return pairs.masked_fill(ignored, 0.0).sum() / len(logits)
        logits = logits.masked_fill(ignored, -torch.inf)
        target = torch.arange(len(logits), device=logits.device)
        cross_entropy = nn.functional.cross_entropy
        return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
