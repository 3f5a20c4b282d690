"""The causal transformer of lucidrains' priors: rotary and relative positions, one key and value for all heads.

From https://github.com/lucidrains/DALLE2-pytorch: multi-query attention (Shazeer 2019) with a learned key and value that
every token may look at, rotary positions (Su et al. 2021) on up to 32 channels, T5's relative bias (Raffel et al. 2020),
gated MLPs (SwiGLU), and norms without a shift, also behind attention and, if wished, inside of the MLP (NormFormer).
"""

import math

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

ROTATED = 32
"""At most so many channels of a head are turned."""

BUCKETS, FARTHEST = 32, 128
"""T5's buckets of distances: every distance of the nearer half has its own, those beyond `FARTHEST` share the last."""


class PeakNorm(nn.Module):
    """A norm without shift of the token divided by its largest value, whose sign it takes with it."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """(b, n, d) -> (b, n, d)."""
        return self.norm(x / x.amax(dim=-1, keepdim=True))


class RelativeBias(nn.Module):
    """What a head adds to the scores of a key that lies so far back: a learned number for each bucket of distances."""

    def __init__(self, heads: int):
        super().__init__()
        self.buckets = nn.Embedding(BUCKETS, heads)

    def forward(self, length: int) -> Float[Tensor, "h n m"]:
        """For each token the bias of each key, the one that all may look at first; -inf for tokens to come.

        Keys are counted with that first one, and tokens without: a token and the one before it are both at distance 0.
        """
        device = self.buckets.weight.device
        token, key = torch.arange(length, device=device)[:, None], torch.arange(length + 1, device=device)
        bias = rearrange(self.buckets(bucket((token - key).clamp(min=0))), "n m h -> h n m")
        return bias.masked_fill(key > token + 1, float("-inf"))


def bucket(distance: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """T5's bucket of each distance, which is not negative: exact for the nearer ones, then by the logarithm."""
    exact = BUCKETS // 2
    far = torch.log(distance.clamp(min=exact).float() / exact) / math.log(FARTHEST / exact)
    return torch.where(
        distance < exact, distance, (exact + (far * (BUCKETS - exact)).long()).clamp(max=BUCKETS - 1)
    )


def rotations(length: int, channels: int, device: torch.device) -> Float[Tensor, "n c"]:
    """The angle by which each channel is turned at each position; neighbouring channels turn together."""
    frequencies = 10_000 ** (-torch.arange(0, channels, 2, device=device, dtype=torch.float32) / channels)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies
    return repeat(angles, "n c -> n (c two)", two=2)


def rotate(x: Float[Tensor, "b h n c"], angles: Float[Tensor, "n r"]) -> Float[Tensor, "b h n c"]:
    """Turn the first r channels, in pairs of neighbours, by the angles of their positions."""
    turned, rest = x[..., : angles.shape[-1]], x[..., angles.shape[-1] :]
    even, odd = rearrange(turned, "b h n (c two) -> two b h n c", two=2)
    quarter = rearrange(torch.stack([-odd, even]), "two b h n c -> b h n (c two)")
    return torch.cat([(turned * angles.cos() + quarter * angles.sin()).to(x.dtype), rest], dim=-1)


class RotaryAttention(nn.Module):
    """Queries of several heads, keys and values of one; `cosine` compares directions alone, 16 times their cosine."""

    def __init__(self, width: int, heads: int, head_channels: int, *, cosine: bool):
        super().__init__()
        self.heads, self.cosine = heads, cosine
        self.scale = 16.0 if cosine else head_channels**-0.5
        self.norm = nn.LayerNorm(width, bias=False)
        self.q = nn.Linear(width, heads * head_channels, bias=False)
        self.kv = nn.Linear(width, 2 * head_channels, bias=False)
        self.null_kv = nn.Parameter(torch.randn(2, head_channels))
        self.out = nn.Linear(heads * head_channels, width, bias=False)
        self.norm_out = nn.LayerNorm(width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        bias: Float[Tensor, "h n m"],
        angles: Float[Tensor, "n r"] | None,
    ) -> Float[Tensor, "b n d"]:
        """`bias` has one key more than there are tokens: the first is the learned one."""
        x = self.norm(x)
        q = rearrange(self.q(x), "b n (h c) -> b h n c", h=self.heads)
        k, v = rearrange(self.kv(x), "b n (two c) -> two b 1 n c", two=2)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        null_k, null_v = repeat(self.null_kv.to(k.dtype), "two c -> two b 1 1 c", b=len(x))
        k, v = torch.cat([null_k, k], dim=2), torch.cat([null_v, v], dim=2)
        if self.cosine:
            q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
        k, v = (repeat(one, "b 1 m c -> b h m c", h=self.heads) for one in (k, v))
        attended = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=bias.to(q.dtype), scale=self.scale
        )
        return self.norm_out(self.out(rearrange(attended, "b h n c -> b n (h c)")))


class GatedMlp(nn.Module):
    """norm, then a product of a linear map and the SiLU of another (SwiGLU, Shazeer 2020), then back."""

    def __init__(self, width: int, ratio: float, *, norm_inside: bool):
        super().__init__()
        hidden = int(ratio * width)
        self.norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.norm_inside = nn.LayerNorm(hidden, bias=False) if norm_inside else nn.Identity()
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """(b, n, d) -> (b, n, d)."""
        value, gate = self.up(self.norm(x)).chunk(2, dim=-1)
        return self.down(self.norm_inside(value * nn.functional.silu(gate)))


class RotaryTransformer(nn.Module):
    """A stack of attention and gated MLPs; what `norm_in`, `norm_out` and `project_out` leave out does nothing."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        head_channels: int,
        *,
        mlp_ratio: float = 4.0,
        cosine: bool = True,
        rotary: bool = True,
        norm_in: bool = False,
        norm_out: bool = True,
        norm_inside: bool = False,
        project_out: bool = True,
    ):
        super().__init__()
        self.rotated = min(ROTATED, head_channels) if rotary else 0
        self.norm_in = nn.LayerNorm(width, bias=False) if norm_in else nn.Identity()
        self.bias = RelativeBias(heads)
        self.attentions = nn.ModuleList(
            RotaryAttention(width, heads, head_channels, cosine=cosine) for _ in range(layers)
        )
        self.mlps = nn.ModuleList(GatedMlp(width, mlp_ratio, norm_inside=norm_inside) for _ in range(layers))
        self.norm_out = PeakNorm(width) if norm_out else nn.Identity()
        self.project_out = nn.Linear(width, width, bias=False) if project_out else nn.Identity()

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """(b, n, d) -> (b, n, d); every token sees itself and those before it."""
        length = x.shape[1]
        bias = self.bias(length)
        angles = rotations(length, self.rotated, x.device) if self.rotated else None
        x = self.norm_in(x)
        for attention, mlp in zip(self.attentions, self.mlps):
            x = x + attention(x, bias, angles)
            x = x + mlp(x)
        return self.project_out(self.norm_out(x))
