"""The residual block of ADM U-Nets (Dhariwal and Nichol 2021, appendix on architecture), with its switches."""

from typing import Literal, TypeVar

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.nn.dropout import SampleDropout
from unclip.nn.norm import NormKind, normalization
from unclip.nn.resample import double, halve

Layer = TypeVar("Layer", bound=nn.Module)


def zeroed(layer: Layer) -> Layer:
    """`layer` with all of its parameters set to zero, the start of whatever is added to a residual stream."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ResBlock(nn.Module):
    """norm, SiLU, conv, norm (modulated by the embedding), SiLU, dropout, conv, and the input added again.

    `embedding_width` is the width of the time embedding; with `scale_shift_norm` it gives a scale and a shift after the
    second norm, `norm(h) (1 + scale) + shift`, else it is added before it. With `resample` "down" or "up" the block
    also halves (mean) or doubles (nearest) the picture, on both of its branches. The last convolution starts at zero,
    so that a new block passes its input through.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        *,
        scale_shift_norm: bool = True,
        resample: Literal["down", "up"] | None = None,
        dropout: float = 0.0,
        norm: NormKind = "group",
        groups: int = 32,
    ):
        super().__init__()
        self.scale_shift_norm = scale_shift_norm
        self.resample = {"down": halve, "up": double, None: None}[resample]
        self.norm1 = normalization(norm, in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding_width, out_channels * (2 if scale_shift_norm else 1))
        self.norm2 = normalization(norm, out_channels, groups)
        self.dropout = SampleDropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        """`embedding` is the time embedding after its SiLU (a U-Net applies that once for all of its blocks)."""
        h = F.silu(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv1(h)
        modulation = rearrange(self.embedding(embedding), "b c -> b c 1 1")
        if self.scale_shift_norm:
            scale, shift = modulation.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + modulation)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))
