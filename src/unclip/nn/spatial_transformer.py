"""Latent diffusion's spatial transformer (arXiv 2112.10752, appendix E.2.1): pixels attend to pixels, then to a text."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.nn.attention import KeyMask, Readings
from unclip.nn.dot_product import attend
from unclip.nn.norm import normalization
from unclip.nn.resblock import zeroed


def _attended(q: Tensor, kv: Tensor, heads: int, mask: Tensor | None, upcast: bool) -> Tensor:
    """Queries (b, n, c) over keys and values (b, m, 2 c); with `upcast`, in float32 whatever their type."""
    q, k, v = (rearrange(one, "b n (a d) -> b a n d", a=heads) for one in (q, *kv.chunk(2, dim=-1)))
    if upcast and q.dtype != torch.float32:
        with torch.autocast(q.device.type, enabled=False):
            attended = attend(q.float(), k.float(), v.float(), mask).to(q.dtype)
    else:
        attended = attend(q, k.to(q), v.to(q), mask)
    return rearrange(attended, "b a n d -> b n (a d)")


class PixelSelfAttention(nn.Module):
    """Multi-head attention among the pixels of a flattened map; only the output has a bias."""

    def __init__(self, width: int, heads: int, *, upcast: bool = False):
        super().__init__()
        self.heads, self.upcast = heads, upcast
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """(b, n, c) -> (b, n, c)."""
        q, kv = self.qkv(x).tensor_split([x.shape[-1]], dim=-1)
        return self.out(_attended(q, kv, self.heads, None, self.upcast))


class CrossAttention(nn.Module):
    """Multi-head attention of pixels to context tokens; only the output has a bias."""

    def __init__(self, width: int, heads: int, context_width: int, *, upcast: bool = False):
        super().__init__()
        self.heads, self.upcast = heads, upcast
        self.query = nn.Linear(width, width, bias=False)
        self.context_kv = nn.Linear(context_width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def read(self, context: Float[Tensor, "b m f"]) -> Float[Tensor, "b m two_c"]:
        """The keys and values of context tokens, which are the same at every step of sampling."""
        return self.context_kv(context.to(self.context_kv.weight.dtype))

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        context: Float[Tensor, "b m f"] | Readings | None,
        mask: KeyMask | None = None,
    ) -> Float[Tensor, "b n c"]:
        """`context` is tokens, or what `read` made of them. Raises ValueError where it is missing."""
        if context is None:
            raise ValueError("this attention reads context tokens, and none were given")
        read = context[self] if isinstance(context, dict) else self.read(context)
        keys = None if mask is None else rearrange(mask.tokens, "b m -> b 1 1 m")
        return self.out(_attended(self.query(x), read, self.heads, keys, self.upcast))


class GatedFeedForward(nn.Module):
    """GEGLU (arXiv 2002.05202): value * gelu(gate), four times as wide inside; the first half is the value."""

    def __init__(self, width: int, ratio: int = 4):
        super().__init__()
        self.into = nn.Linear(width, 2 * ratio * width)
        self.out = nn.Linear(ratio * width, width)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """(b, n, c) -> (b, n, c)."""
        value, gate = self.into(x).chunk(2, dim=-1)
        return self.out(value * F.gelu(gate))


class SpatialBlock(nn.Module):
    """x + self(norm(x)), x + cross(norm(x)), x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, context_width: int, *, upcast: bool = False):
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = PixelSelfAttention(width, heads, upcast=upcast)
        self.norm_2 = nn.LayerNorm(width)
        self.cross = CrossAttention(width, heads, context_width, upcast=upcast)
        self.norm_3 = nn.LayerNorm(width)
        self.mlp = GatedFeedForward(width)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        context: Float[Tensor, "b m f"] | Readings | None,
        mask: KeyMask | None = None,
    ) -> Float[Tensor, "b n c"]:
        """(b, n, c) -> (b, n, c)."""
        x = x + self.attention(self.norm_1(x))
        x = x + self.cross(self.norm_2(x), context, mask)
        return x + self.mlp(self.norm_3(x))


class SpatialTransformer(nn.Module):
    """Blocks over the pixels of `b c h w` maps, between two projections of which the last starts at zero.

    The projections are linear in each pixel: Stable Diffusion 1 stores them as 1x1 convolutions, 2 as matrices.
    Raises ValueError where `heads` does not divide `channels`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context_width: int,
        *,
        layers: int = 1,
        groups: int = 32,
        upcast: bool = False,
    ):
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not split into {heads} heads: change heads")
        self.norm = normalization("group", channels, groups, eps=1e-6)
        self.into = nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(
            SpatialBlock(channels, heads, context_width, upcast=upcast) for _ in range(layers)
        )
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        context: Float[Tensor, "b m f"] | Readings | None = None,
        mask: Bool[Tensor, "b m"] | KeyMask | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """`mask` is True at context tokens that may be attended to; None for all."""
        height, width = x.shape[-2:]
        if isinstance(mask, Tensor):
            mask = KeyMask(mask)
        pixels = self.into(rearrange(self.norm(x), "b c h w -> b (h w) c").contiguous())
        for block in self.blocks:
            pixels = block(pixels, context, mask)
        return x + rearrange(self.out(pixels), "b (h w) c -> b c h w", h=height, w=width)
