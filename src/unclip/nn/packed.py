"""Layers for inference on a CPU: weights laid out once as oneDNN's kernels want them, and fewer passes over memory.

torch's own convolutions bring their weights into that layout at every call; where maps are small, that takes as long as
the product. These layers compute in the type of their weights, give answers of that type, and cannot be trained.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.nn.resample import double, halve
from unclip.nn.resblock import ResBlock
from unclip.nn.winograd import Widths, WinogradConv2d, suits


def can_pack(dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether this build of torch has the kernels, and, for bfloat16, a processor that multiplies it."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
        and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class PackedConv2d(nn.Module):
    """A convolution of `dtype`, made of an ordinary one.

    Its layout is chosen for the input that it is called with, and again where that has another shape: with weights in
    the layout of another kernel oneDNN would bring them into the right one at every call, some by a routine that takes
    fifty times as long as the product.
    """

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        assert not isinstance(layer.padding, str)
        self.shape = list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups
        self.dtype = dtype
        # A plain attribute: what oneDNN holds is opaque, and not for state_dict.
        self.weight = layer.weight.detach().to(dtype)
        self._packed_for: torch.Size | None = None
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        *,
        plus: Float[Tensor, "b k i j"] | None = None,
        shift: Float[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b k i j"]:
        """The convolution of `x`, added to `plus` before it is rounded; `shift` is added to the whole of each channel."""
        if shift is not None and len(x) > 1:
            return self(x, plus=plus).add_(rearrange(shift, "b k -> b k 1 1"))
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        bias = self.bias if shift is None else shift[0] if self.bias is None else self.bias + shift[0]
        layer = self._pack(x.shape), bias, *self.shape
        if plus is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *layer, "none", [], "")
        plus = plus.to(self.dtype).contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, plus, *layer, "add", None, None, [], None)

    def _pack(self, shape: torch.Size) -> Tensor:
        if self._packed_for != shape:
            plain = self.weight.to_dense() if self.weight.is_mkldnn else self.weight
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(plain, *self.shape, list(shape))
            self._packed_for = shape
        return self.weight


class EitherConv2d(nn.Module):
    """A 3x3 convolution in float32 that takes fewer products on the maps where that is faster (`unclip.nn.winograd`)."""

    def __init__(self, layer: nn.Conv2d, widths: Widths):
        super().__init__()
        self.widths, self.channels = widths, min(layer.in_channels, layer.out_channels)
        self.direct = PackedConv2d(layer, torch.float32)
        self._layer = [layer]
        self._fewer: list[WinogradConv2d] = []

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        *,
        plus: Float[Tensor, "b k h w"] | None = None,
        shift: Float[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """As `PackedConv2d`'s."""
        if not self.widths.take(self.channels, *x.shape[-2:]):
            return self.direct(x, plus=plus, shift=shift)
        if not self._fewer:
            self._fewer.append(WinogradConv2d(self._layer[0]))
        return self._fewer[0](x, plus=plus, shift=shift)


def packed_convolution(
    layer: nn.Conv2d, dtype: torch.dtype = torch.bfloat16, widths: Widths | None = None
) -> "PackedConv2d | EitherConv2d":
    """A convolution of `dtype`, made of an ordinary one; in float32 one that may take fewer products, if `widths` say so."""
    if widths is not None and dtype == torch.float32 and suits(layer):
        least = min((width for width in widths if width), default=0)
        if 0 < least <= min(layer.in_channels, layer.out_channels):
            return EitherConv2d(layer, widths)
    return PackedConv2d(layer, dtype)


class DoublingConv2d(nn.Module):
    """`conv(double(x))` for a 3x3 convolution, in 4/9 of its products.

    Of the 3x3 pixels that a doubled map is read at, only 2x2 are different: for each of the four positions within a
    doubled pixel there is a 2x2 kernel, which holds the sums of the weights that meet the same pixel.
    """

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        self.phases = nn.ModuleList()
        weight = layer.weight.detach().float()
        for vertical in range(2):
            rows = _sums(weight, vertical, 2)
            for horizontal in range(2):
                # On the meta device: only the weights that follow are wanted.
                phase = nn.Conv2d(layer.in_channels, layer.out_channels, 2, padding=1, device="meta")
                phase.weight = nn.Parameter(_sums(rows, horizontal, 3), requires_grad=False)
                phase.bias = layer.bias
                self.phases.append(PackedConv2d(phase, dtype))

    def forward(
        self, x: Float[Tensor, "b c h w"], *, shift: Float[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b k 2*h 2*w"]:
        """As `PackedConv2d`'s."""
        height, width = x.shape[-2:]
        made: Tensor | None = None
        for index, phase in enumerate(self.phases):
            part = phase(x, shift=shift)
            if made is None:
                shape = (len(x), part.shape[1], 2 * height, 2 * width)
                made = torch.empty(shape, dtype=part.dtype, memory_format=torch.channels_last)
            vertical, horizontal = divmod(index, 2)
            made[:, :, vertical::2, horizontal::2] = part[
                :, :, vertical : vertical + height, horizontal : horizontal + width
            ]
        assert made is not None
        return made


def _sums(weight: Tensor, phase: int, axis: int) -> Tensor:
    first, middle, last = weight.unbind(axis)
    pair = (first, middle + last) if phase == 0 else (first + middle, last)
    return torch.stack(pair, axis)


class PackedLinear(nn.Module):
    """A linear layer of `dtype`, made of an ordinary one."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        self.dtype = dtype
        weight = layer.weight.detach().to(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b k"]:
        x = x.to(self.dtype)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class PackedPixelwise(nn.Module):
    """A 1x1 convolution: a linear layer on pixels, for which oneDNN has better kernels."""

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        assert layer.kernel_size == layer.stride == (1, 1)
        assert layer.groups == 1
        linear = nn.Linear(layer.in_channels, layer.out_channels, device="meta", bias=layer.bias is not None)
        linear.weight = nn.Parameter(layer.weight.detach()[..., 0, 0], requires_grad=False)
        if layer.bias is not None:
            linear.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
        self.linear = PackedLinear(linear, dtype)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        pixels = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        return self.linear(pixels).permute(0, 3, 1, 2)


class PackedResBlock(nn.Module):
    """A `ResBlock`, with its convolutions packed."""

    def __init__(self, block: ResBlock, dtype: torch.dtype = torch.bfloat16, widths: Widths | None = None):
        super().__init__()
        self.scale_shift_norm, self.resample = block.scale_shift_norm, block.resample
        self.norm1, self.norm2 = block.norm1, block.norm2
        doubles = block.resample is double
        self.conv1 = (
            DoublingConv2d(block.conv1, dtype) if doubles else packed_convolution(block.conv1, dtype, widths)
        )
        self.conv2 = packed_convolution(block.conv2, dtype, widths)
        self.embedding = PackedLinear(block.embedding, dtype)
        self.skip = PackedPixelwise(block.skip, dtype) if isinstance(block.skip, nn.Conv2d) else None

    def forward(
        self, x: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        """As `ResBlock`'s."""
        h = F.silu(self.norm1(x), inplace=True)
        if self.resample is halve:
            h = halve(h)
        if self.resample is not None:
            x = self.resample(x)
        modulation = self.embedding(embedding)
        if self.scale_shift_norm:
            scale, shift = rearrange(modulation, "b (two c) -> two b c 1 1", two=2)
            h = torch.addcmul(shift, self.norm2(self.conv1(h)), 1 + scale)
        else:
            h = self.norm2(self.conv1(h, shift=modulation))
        h = F.silu(h, inplace=True)
        return self.conv2(h, plus=x if self.skip is None else self.skip(x))
