"""Multilingual CLIP: captions of a hundred languages in the space of CLIP's text embeddings (Carlsson et al. 2022).

An XLM-R encoder (Conneau et al. 2020, arXiv 1911.02116) and a projection of the mean of its states. Kandinsky 2.1's decoder
reads it beside the image embedding.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unclip.networks.clip import TextEncoding
from unclip.nn.transformer import SelfAttention

EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class MultilingualConfig:
    """Shape of a `Multilingual`. Positions are counted from `pad + 1`; padding itself has position `pad`."""

    kind: Literal["multilingual"] = "multilingual"
    vocabulary: int = 250002
    positions: int = 514
    context: int = 77
    """Tokens of a caption, padding included."""
    pad: int = 1
    width: int = 1024
    hidden: int = 4096
    layers: int = 24
    heads: int = 16
    embedding: int = 768
    """Width of the caption's embedding."""

    def __post_init__(self) -> None:
        """Raise ValueError for a context that the positions do not cover."""
        if self.context + self.pad >= self.positions:
            raise ValueError(
                f"context is {self.context}, but {self.positions} positions reach {self.positions - self.pad - 1} tokens"
            )


class PostNormBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)): the block of the first transformers, and of BERT and XLM-R."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.norm_1 = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm_2 = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b 1 n n"]) -> Float[Tensor, "b n d"]:
        """States; `mask` is True at tokens that may be attended to."""
        x = self.norm_1(x + self.attention(x, mask))
        return self.norm_2(x + self.mlp(x))


class Multilingual(nn.Module):
    """`config` as a network from tokens to a `TextEncoding`."""

    def __init__(self, config: MultilingualConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.segment = nn.Parameter(torch.zeros(config.width))
        """Added to every token: XLM-R knows one segment."""
        self.norm_in = nn.LayerNorm(config.width, eps=EPS)
        self.blocks = nn.ModuleList(
            PostNormBlock(config.width, config.heads, config.hidden) for _ in range(config.layers)
        )
        self.project = nn.Linear(config.width, config.embedding)

    def encode_text(self, tokens: Int[Tensor, "b n"]) -> TextEncoding:
        """Embedding, last states and mask of captions; padding is what equals `config.pad`.

        Raises ValueError for captions of another length than the config's context.
        """
        config = self.config
        if tokens.shape[1] != config.context:
            raise ValueError(
                f"captions have {tokens.shape[1]} tokens, this text encoder reads {config.context}"
            )
        mask = tokens != config.pad
        positions = mask.cumsum(1) * mask + config.pad
        x = self.norm_in(self.tokens(tokens) + self.segment + self.positions(positions))
        # Padding reads the caption too, and the decoder reads the states of padding.
        keys = repeat(mask, "b m -> b 1 n m", n=mask.shape[1])
        for block in self.blocks:
            x = block(x, keys)
        shares = mask / mask.sum(1, keepdim=True)
        mean = (x * shares[..., None].to(x.dtype)).sum(1)
        return TextEncoding(self.project(mean).float(), x, mask)
