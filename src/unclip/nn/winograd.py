"""3x3 convolutions with fewer products, for inference on a CPU: Winograd's minimal filtering F(4x4, 3x3).

A tile of 4x4 outputs takes 36 products of each pair of channels in place of 144: Y = A^T [(G g G^T) * (B^T d B)] A, where d is
the tile's 6x6 inputs and g the weights (Lavin and Gray, arXiv 1509.09308, section 4.3). The transforms of d and Y are sums; the
36 products are matrix products of tiles by channels, which oneDNN computes. Answers differ from the direct convolution's by
rounding, at most about 1e-4 of their deviation.
"""

import threading
from collections.abc import Iterator
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

TILE, REACH = 4, 6
"""Sides of what a tile gives, and of what it reads."""
BLOCK = 128
"""Tiles that are transformed at a time, for each thread: their products stay in the cache."""

# Points 0, 1, -1, 2, -2 and infinity.
_INPUT = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_WEIGHT = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_OUTPUT = torch.tensor([[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
# Both sides of a transform at once: one matrix product over all channels and tiles.
_IN, _OUT = torch.kron(_INPUT, _INPUT), torch.kron(_OUTPUT, _OUTPUT)

_space = threading.local()


class Widths(NamedTuple):
    """The least numbers of channels from which `WinogradConv2d` is faster than the direct convolution, 0 for none.

    Of maps whose shorter side is 16 to 31, 32 to 63, and 64 or more. Smaller maps have too few tiles: the transformed weights are
    four times as large, and reading them takes longest.
    """

    side16: int
    side32: int
    side64: int

    def take(self, channels: int, height: int, width: int) -> bool:
        """Whether a layer of so many channels (the smaller of both ends) takes fewer products on such a map."""
        side = min(height, width)
        least = self.side64 if side >= 64 else self.side32 if side >= 32 else self.side16 if side >= 16 else 0
        return 0 < least <= channels


def suits(layer: nn.Module) -> bool:
    """Whether a layer is a 3x3 convolution that keeps a map's size."""
    return type(layer) is nn.Conv2d and (
        layer.kernel_size == (3, 3)
        and layer.stride == layer.padding == layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
    )


class WinogradConv2d(nn.Module):
    """A 3x3 convolution in float32 that keeps a map's size, made of an ordinary one; 4 times the weights, 1/4 of the products."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        assert suits(layer)
        self.channels = layer.out_channels
        weight = torch.einsum("ia,kcab,jb->ijkc", _WEIGHT, layer.weight.detach().double(), _WEIGHT).float()
        # Plain attributes: what oneDNN holds is opaque, and not for state_dict.
        self.weights = [
            torch.ops.mkldnn._reorder_linear_weight(one.contiguous(), None)
            for one in rearrange(weight, "i j k c -> (i j) k c")
        ]
        self.bias = None if layer.bias is None else layer.bias.detach().float()

    @torch.no_grad()
    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        *,
        plus: Float[Tensor, "b k h w"] | None = None,
        shift: Float[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """The convolution of `x`, plus `plus`; `shift` is added to the whole of each channel."""
        x = x.float()
        batch, channels, height, width = x.shape
        down, across = -(-height // TILE), -(-width // TILE)
        padded = x.new_zeros(batch, TILE * down + 2, TILE * across + 2, channels)
        padded[:, 1 : height + 1, 1 : width + 1] = rearrange(x, "b c h w -> b h w c")
        made = x.new_empty(batch, TILE * down, TILE * across, self.channels)
        for samples, rows in _blocks(batch, down, across):
            tiles = _tiles(padded[samples], rows, across)
            inputs = _buffer("inputs", REACH * REACH, *tiles.shape[2:])
            inputs.copy_(rearrange(tiles, "i j b d a c -> (i j) b d a c"))
            inputs = inputs.flatten(1)
            moved = torch.mm(_IN, inputs, out=_buffer("moved", *inputs.shape))
            moved = rearrange(moved, "q (t c) -> q t c", c=channels)
            answers = _buffer("answers", REACH * REACH, moved.shape[1], self.channels)
            for one, weight, answer in zip(moved, self.weights, answers, strict=True):
                answer.copy_(torch.ops.mkldnn._linear_pointwise(one, weight, None, "none", [], ""))
            answers = answers.flatten(1)
            outputs = torch.mm(_OUT, answers, out=_buffer("inputs", TILE * TILE, answers.shape[1]))
            here = made[samples, TILE * rows.start : TILE * rows.stop]
            here = here.view(len(here), len(rows), TILE, across, TILE, self.channels)
            here.copy_(
                rearrange(
                    outputs, "(i j) (b d a k) -> b d i a j k", i=TILE, b=len(here), d=len(rows), a=across
                )
            )
        answer = rearrange(made[:, :height, :width], "b h w k -> b k h w")
        if self.bias is not None:
            answer += rearrange(self.bias, "k -> 1 k 1 1")
        if shift is not None:
            answer += rearrange(shift, "b k -> b k 1 1")
        return answer if plus is None else answer.add_(plus)


def _blocks(batch: int, down: int, across: int) -> Iterator[tuple[slice, range]]:
    """Samples and rows of tiles that are transformed at a time: some rows of one sample, or whole small samples."""
    most = BLOCK * torch.get_num_threads()
    rows, samples = max(1, most // across), max(1, most // (down * across))
    for first in range(0, batch, samples):
        for top in range(0, down, rows):
            yield slice(first, min(batch, first + samples)), range(top, min(down, top + rows))


def _tiles(padded: Tensor, rows: range, across: int) -> Tensor:
    """View of overlapping tiles, with their pixels first: (6, 6, b, rows, across, c)."""
    sample, row, column, channel = padded.stride()
    shape = (REACH, REACH, len(padded), len(rows), across, padded.shape[-1])
    strides = (row, column, sample, TILE * row, TILE * column, channel)
    return padded.as_strided(shape, strides, padded.storage_offset() + TILE * rows.start * row)


def _buffer(name: str, *shape: int) -> Tensor:
    """Memory that a thread uses again: fresh pages would take as long as a transform."""
    size = torch.Size(shape).numel()
    kept = getattr(_space, name, None)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(False):
            kept = torch.empty(size)
        setattr(_space, name, kept)
    return kept[:size].view(shape)
