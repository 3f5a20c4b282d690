"""Scaled dot-product attention, fused where that is faster."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

SHORT = 512
"""Up to so many keys the whole table of scores is small enough for a CPU's caches."""


ALIGNED = 16


def attend(
    q: Float[Tensor, "b h n c"],
    k: Float[Tensor, "b h m c"],
    v: Float[Tensor, "b h m c"],
    mask: Bool[Tensor, "#b #h #n m"] | Float[Tensor, "#b #h #n m"] | None = None,
) -> Float[Tensor, "b h n c"]:
    """softmax(q k^T / sqrt(c)) v; `mask` is True where a query (row) may look at a key (column), or `additive`.

    In training on a CPU, sequences of up to `SHORT` keys are multiplied out: the fused kernel's backward pass takes two
    to three times as long there as the plain products in bfloat16 (`python benchmarks/attention.py`).
    """
    if q.device.type != "cpu" or not torch.is_grad_enabled() or k.shape[-2] > SHORT:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1) @ v


def additive(mask: Bool[Tensor, "*b n m"], dtype: torch.dtype) -> Float[Tensor, "*b n m"]:
    """`mask` as what attention adds to scores of `dtype`: 0 where a query may look at a key, -inf elsewhere.

    The fused kernels of a GPU want it so, with rows that begin at multiples of `ALIGNED` numbers; given another mask, torch
    makes such a one at every call, in five launches.
    """
    width = mask.shape[-1]
    rows = torch.zeros(*mask.shape[:-1], -(-width // ALIGNED) * ALIGNED, dtype=dtype, device=mask.device)
    return rows[..., :width].masked_fill_(~mask, float("-inf"))
