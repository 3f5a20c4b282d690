"""Attention between the pixels of a feature map and, as in GLIDE, the tokens of a context."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.nn.dot_product import additive
from unclip.nn.norm import NormKind, normalization
from unclip.nn.resblock import zeroed

Readings = dict[nn.Module, Tensor]
"""For each attention of a net the keys and values (b, m, 2 c) that it `read` in the context."""


class KeyMask:
    """Which context tokens may be attended to, beside all pixels; made once for all attentions of one resolution."""

    def __init__(self, tokens: Bool[Tensor, "b m"]):
        self.tokens = tokens
        self._made: dict[Any, Tensor] = {}

    def beside(self, pixels: Any, dtype: torch.dtype) -> Tensor:
        """The mask (b, 1, 1, m + pixels) of tokens and so many pixels, for scores of `dtype`.

        `pixels` is an int; while a graph is traced, a tensor.
        """
        if pixels not in self._made:
            kept = torch.cat([self.tokens, self.tokens.new_ones(len(self.tokens), pixels)], dim=1)
            mask = rearrange(kept, "b m -> b 1 1 m")
            self._made[pixels] = mask if mask.device.type == "cpu" else additive(mask, dtype)
        return self._made[pixels]


class PixelAttention(nn.Module):
    """Self-attention over the pixels of `b c h w` maps, with context tokens as further keys and values.

    Pixels ask; pixels and tokens answer, in one softmax (GLIDE, Nichol et al. 2021, section 4). The result, projected by
    a layer that starts at zero, is added to the input. `context_width` None makes it plain self-attention.

    Raises ValueError when `head_channels` does not divide `channels`, or when tokens come that it was not built for.
    """

    def __init__(
        self,
        channels: int,
        head_channels: int,
        context_width: int | None = None,
        *,
        norm: NormKind = "group",
        groups: int = 32,
    ):
        super().__init__()
        if channels % head_channels:
            raise ValueError(
                f"{channels} channels do not split into heads of {head_channels}; change head_channels"
            )
        self.heads = channels // head_channels
        self.norm = normalization(norm, channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.context_kv = None if context_width is None else nn.Linear(context_width, 2 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def read(self, context: Float[Tensor, "b m f"]) -> Float[Tensor, "b m two_c"]:
        """The keys and values of context tokens, which are the same at every step of sampling."""
        if self.context_kv is None:
            raise ValueError("this attention takes no context tokens; set context_width in the net's config")
        return self.context_kv(context.to(self.context_kv.weight.dtype))

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        context: Float[Tensor, "b m f"] | Readings | None = None,
        mask: Bool[Tensor, "b m"] | KeyMask | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """`context` is tokens, or what `read` made of them; `mask` is True where one may be attended to, None for all."""
        height, width = x.shape[-2:]
        # Contiguous, as else torch adds the bias in a pass of its own.
        pixels = rearrange(self.norm(x), "b c h w -> b (h w) c").contiguous()
        q, k, v = rearrange(
            self.qkv(pixels), "b n (three a d) -> three b a n d", three=3, a=self.heads
        ).unbind(0)
        bias = None
        if context is not None:
            extra = context[self] if isinstance(context, dict) else self.read(context)
            extra_k, extra_v = rearrange(extra, "b m (two a d) -> two b a m d", two=2, a=self.heads).unbind(0)
            k, v = torch.cat([extra_k.to(k), k], dim=2), torch.cat([extra_v.to(v), v], dim=2)
            if mask is not None:
                mask = mask if isinstance(mask, KeyMask) else KeyMask(mask)
                bias = mask.beside(height * width, q.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        attended = self.out(rearrange(attended, "b a n d -> b n (a d)"))
        return x + rearrange(attended, "b (h w) c -> b c h w", h=height, w=width)
