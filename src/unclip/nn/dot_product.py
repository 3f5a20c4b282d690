"""Scaled dot-product attention, fused where that is faster."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

SHORT = 512
"""Up to so many keys the whole table of scores is small enough for a CPU's caches."""


def attend(
    q: Float[Tensor, "b h n c"],
    k: Float[Tensor, "b h m c"],
    v: Float[Tensor, "b h m c"],
    mask: Bool[Tensor, "#b #h n m"] | None = None,
) -> Float[Tensor, "b h n c"]:
    """softmax(q k^T / sqrt(c)) v; `mask` is True where a query (row) may look at a key (column).

    In training on a CPU, sequences of up to `SHORT` keys are multiplied out: the fused kernel's backward pass takes two
    to three times as long there as the plain products in bfloat16 (`python benchmarks/attention.py`).
    """
    if q.device.type != "cpu" or not torch.is_grad_enabled() or k.shape[-2] > SHORT:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v
