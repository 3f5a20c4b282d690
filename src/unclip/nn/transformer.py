"""The pre-norm transformer of GPT-2 and CLIP: the text and picture towers, the prior and GLIDE's text encoder."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

Activation = Literal["gelu", "quick_gelu"]


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), the approximation that OpenAI's CLIP weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGelu}


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
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "#b 1 n n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """`mask` is True where a query (row) may look at a key (column)."""
        q, k, v = rearrange(self.qkv(x), "b n (three h c) -> three b h n c", three=3, h=self.heads)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
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
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "#b 1 n n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """(b, n, d) -> (b, n, d)."""
        x = x + self.attention(self.norm_1(x), mask)
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

    def forward(
        self, x: Float[Tensor, "b n d"], keys: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """`keys` is True at tokens that may be looked at (False at padding)."""
        mask = attention_mask(x.shape[1], causal=self.causal, keys=keys, device=x.device)
        for block in self.blocks:
            x = block(x, mask)
        return x


def attention_mask(
    length: int, *, causal: bool, keys: Bool[Tensor, "b n"] | None, device: torch.device
) -> Bool[Tensor, "b 1 n n"] | None:
    """True where row (query) may look at column (key); every query may look at itself, so that no row is empty."""
    if not causal and keys is None:
        return None
    full = torch.ones(1, 1, length, length, dtype=torch.bool, device=device)
    mask = full.tril() if causal else full
    if keys is not None:
        mask = (mask & keys[:, None, None, :]) | torch.eye(length, dtype=torch.bool, device=device)
    return mask
