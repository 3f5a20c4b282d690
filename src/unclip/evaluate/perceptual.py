"""Perceptual distance by a judge (`networks.perceptual`), picture by picture."""

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.evaluate.features import Encoder
from unclip.networks.perceptual import activation_distance


@torch.no_grad()
def perceptual_distance(
    judge: Encoder, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, " n"]:
    """Perceptual distance of each picture of `a` to the same row of `b`, both in [-1, 1]; 0 for equal ones, at most 4.

    Raises ValueError for a judge without an image tower.
    """
    if judge.clip.vision is None:
        raise ValueError(f"the judge {judge.name!r} has no image tower: give a CLIP with both towers")
    found = [
        activation_distance(judge.clip, one.to(judge.device), other.to(judge.device))[0].cpu()
        for one, other in zip(a.split(1), b.split(1), strict=True)
    ]
    return torch.stack(found) if found else torch.zeros(0)
