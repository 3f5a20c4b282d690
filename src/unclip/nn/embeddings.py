"""Embeddings of a scalar label and of positions on a grid."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def timestep_embedding(
    label: Float[Tensor, " b"], dimension: int, max_period: float = 10_000.0
) -> Float[Tensor, "b d"]:
    """Sinusoids [cos, sin] of `label` with geometrically spaced periods (Vaswani et al. 2017; DDPM, appendix B)."""
    half = dimension // 2
    frequencies = torch.exp(
        -math.log(max_period) / half * torch.arange(half, device=label.device, dtype=torch.float32)
    )
    angles = label.float()[:, None] * frequencies
    embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
    return nn.functional.pad(embedding, (0, dimension - 2 * half))


class LabelEmbedding(nn.Module):
    """A two-layer perceptron on the sinusoids of a label, to `width` channels.

    Labels are in timestep units; `scale` brings other numbers, such as a noise level in [0, 1], to their range.
    """

    def __init__(self, width: int, *, frequencies: int | None = None, scale: float = 1.0):
        super().__init__()
        self.frequencies = frequencies or width
        self.scale = scale
        self.linear_1 = nn.Linear(self.frequencies, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, label: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """`label` in timestep units -> (b, width)."""
        embedding = timestep_embedding(label * self.scale, self.frequencies).to(self.linear_1.weight.dtype)
        return self.linear_2(nn.functional.silu(self.linear_1(embedding)))


class VectorEmbedding(nn.Module):
    """A two-layer perceptron from a conditioning vector to `width` channels, as Stable Diffusion's class embedding."""

    def __init__(self, vector: int, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(vector, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, vector: Float[Tensor, "b v"]) -> Float[Tensor, "b d"]:
        """(b, vector) -> (b, width)."""
        return self.linear_2(nn.functional.silu(self.linear_1(vector)))


def grid_positions(height: int, width: int, dimension: int) -> Float[Tensor, "n d"]:
    """Sinusoids of row and column, half of the channels each, for a row-major grid (ViT; MAE, appendix)."""
    rows = timestep_embedding(torch.arange(height, dtype=torch.float32), dimension // 2)
    columns = timestep_embedding(torch.arange(width, dtype=torch.float32), dimension - dimension // 2)
    return torch.cat([rows.repeat_interleave(width, 0), columns.repeat(height, 1)], dim=-1)
