"""Residual blocks for inference on a GPU: fewer launches, and fewer passes over the maps, than the layers one by one.

A pass over a map takes a GPU as long as much of a convolution, and torch adds a convolution's bias in a pass of its own.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.nn.resblock import ResBlock


class FusedResBlock(nn.Module):
    """A `ResBlock` that cannot be trained; it takes over the block's layers and changes their biases.

    The first convolution's bias is part of the label's shift, where that is added to the same map; the second one's is
    part of the skip's convolution, if there is one. Scale and shift are one pass, and each SiLU overwrites its input.
    """

    def __init__(self, block: ResBlock):
        super().__init__()
        self.scale_shift_norm, self.resample = block.scale_shift_norm, block.resample
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.conv1, self.conv2 = block.conv1, block.conv2
        self.embedding, self.skip = block.embedding, block.skip
        if not self.scale_shift_norm:
            _move_bias(self.conv1, self.embedding)
        if isinstance(self.skip, nn.Conv2d):
            _move_bias(self.conv2, self.skip)

    def forward(
        self, x: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        """As `ResBlock`'s."""
        h = F.silu(self.norm1(x), inplace=True)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv1(h)
        modulation = rearrange(self.embedding(embedding), "b c -> b c 1 1")
        if self.scale_shift_norm:
            scale, shift = modulation.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h.add_(modulation))
        return self.conv2(F.silu(h, inplace=True)).add_(self.skip(x))


def _move_bias(layer: nn.Conv2d, other: nn.Conv2d | nn.Linear) -> None:
    """Add a layer's bias to that of a layer whose output is added to its own."""
    if layer.bias is None:
        return
    bias = layer.bias.detach().float()
    if other.bias is not None:
        bias = bias + other.bias.detach().float()
    layer.bias, other.bias = None, nn.Parameter(bias.to(other.weight.dtype), requires_grad=False)
