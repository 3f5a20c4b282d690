"""The pre-norm transformer of GPT-2 and CLIP: the text and picture towers, the prior and GLIDE's text encoder."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unclip.nn.dot_product import additive, attend

Activation = Literal["gelu", "quick_gelu"]


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), the approximation that OpenAI's CLIP weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGelu}


class KeyValues:
    """The keys and values of the tokens that one attention has read: further tokens are read without those again."""

    def __init__(self, *pair: Tensor):
        self.pair: tuple[Tensor, Tensor] | None = (pair[0], pair[1]) if pair else None

    def __len__(self) -> int:
        return 0 if self.pair is None else self.pair[0].shape[2]

    def extend(
        self, k: Float[Tensor, "b h n c"], v: Float[Tensor, "b h n c"]
    ) -> tuple[Float[Tensor, "b h m c"], Float[Tensor, "b h m c"]]:
        """Put those of further tokens behind the others; all of them."""
        if self.pair is not None:
            k, v = torch.cat([self.pair[0], k], dim=2), torch.cat([self.pair[1], v], dim=2)
        self.pair = k, v
        return k, v


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection; rows of its weight are [queries, keys, values]."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "#b 1 n m"] | Float[Tensor, "#b 1 n m"] | None = None,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`mask` as `attend` takes it; the keys of `past` come first, and it grows."""
        q, k, v = rearrange(self.qkv(x), "b n (three h c) -> three b h n c", three=3, h=self.heads)
        if past is not None:
            k, v = past.extend(k, v)
        attended = attend(q, k, v, mask)
        return self.out(rearrange(attended, "b h n c -> b n (h c)"))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (GPT-2)."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 4.0, activation: Activation = "gelu"):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm_1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, width)
        )

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "#b 1 n m"] | Float[Tensor, "#b 1 n m"] | None = None,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b n d"]:
        """(b, n, d) -> (b, n, d)."""
        x = x + self.attention(self.norm_1(x), mask, past)
        return x + self.mlp(self.norm_2(x))


class Transformer(nn.Module):
    """A stack of blocks; `causal` lets a token see itself and those before it."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        activation: Activation = "gelu",
        causal: bool = False,
    ):
        super().__init__()
        self.causal = causal
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=mlp_ratio, activation=activation) for _ in range(layers)
        )
        # GPT-2's scaled initialisation keeps the residual stream's variance near one at any depth.
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                depth = (2 * layers) ** -0.5 if name.endswith(("out.weight", "mlp.2.weight")) else 1.0
                nn.init.normal_(parameter, std=depth * parameter.shape[1] ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def cache(self) -> list[KeyValues]:
        """A memory for `forward`, of no tokens yet: one part for each block."""
        return [KeyValues() for _ in self.blocks]

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        keys: Bool[Tensor, "b m"] | None = None,
        cache: list[KeyValues] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`keys` is True at tokens that may be looked at (False at padding).

        With a `cache`, `x` follows the tokens that were read with it before, and `keys` covers those too. Only a
        causal transformer gives the same result piece by piece.
        """
        length = x.shape[1] + (len(cache[0]) if cache else 0)
        mask = attention_mask(length, causal=self.causal, keys=keys, device=x.device, queries=x.shape[1])
        if mask is not None and x.device.type != "cpu" and not torch.is_grad_enabled():
            # Once for all blocks, in the type that they multiply in.
            mask = additive(mask, _product_type(x))
        for index, block in enumerate(self.blocks):
            x = block(x, mask, cache[index] if cache else None)
        return x


def attention_mask(
    length: int,
    *,
    causal: bool,
    keys: Bool[Tensor, "b m"] | None,
    device: torch.device,
    queries: int | None = None,
) -> Bool[Tensor, "#b 1 n m"] | None:
    """True where row (query) may look at column (key); every query may look at itself, so that no row is empty.

    The rows are the last `queries` of the `length` tokens; all, unless given.
    """
    if not causal and keys is None:
        return None
    rows = length if queries is None else queries
    full = torch.ones(1, 1, rows, length, dtype=torch.bool, device=device)
    mask = full.tril(length - rows) if causal else full
    if keys is not None:
        itself = full.tril(length - rows).triu(length - rows)
        mask = (mask & keys[:, None, None, :]) | itself
    return mask


def _product_type(x: Tensor) -> torch.dtype:
    """The type in which layers multiply what they are given: autocast's where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
