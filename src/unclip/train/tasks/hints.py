"""Random inpainting masks for training, as GLIDE's inpainting model was trained with (section 4)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unclip.rng import Noise


def random_hint(x0: Float[Tensor, "b c h w"], noise: Noise, dropout: float) -> Float[Tensor, "b k h w"]:
    """[masked picture or latent, mask] with mask 1 where it is kept; a share `dropout` of samples keeps nothing.

    The hole is a rectangle, or in a third of the samples everything but one (outpainting).
    """
    height, width = x0.shape[-2:]
    corner = noise.fork("corner").uniform(4).to(x0)
    top, bottom = corner[:, :2].sort(dim=1).values.unbind(1)
    left, right = corner[:, 2:].sort(dim=1).values.unbind(1)
    rows = (torch.arange(height, device=x0.device) + 0.5) / height
    columns = (torch.arange(width, device=x0.device) + 0.5) / width
    inside_rows = (rows > top[:, None]) & (rows < bottom[:, None])
    inside_columns = (columns > left[:, None]) & (columns < right[:, None])
    hole = inside_rows[:, :, None] & inside_columns[:, None, :]
    kind = noise.fork("kind").uniform(2).to(x0)
    hole = hole ^ (kind[:, 0] < 1 / 3)[:, None, None]
    hole = hole | (kind[:, 1] < dropout)[:, None, None]
    mask = rearrange((~hole).to(x0), "b h w -> b 1 h w")
    return torch.cat([x0 * mask, mask], dim=1)
