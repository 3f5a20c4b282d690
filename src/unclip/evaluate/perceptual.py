"""Perceptual distance: differences between the activations of a judge's image tower (as LPIPS, Zhang et al. 2018)."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unclip.evaluate.features import Encoder


@torch.no_grad()
def perceptual_distance(
    judge: Encoder, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, " n"]:
    """Perceptual distance of each picture of `a` to the same row of `b`, both in [-1, 1]; 0 for equal ones, at most 4.

    Pictures are cut into squares of the judge's input size, so that every pixel counts; other sizes are enlarged to the
    next multiple. Activations after each block are scaled to length 1 at every patch; their squared differences are
    averaged over patches, blocks and squares. This is LPIPS (equation 1) without its learned weights.
    """
    tower = judge.clip.vision
    if tower is None:
        raise ValueError(f"the judge {judge.name!r} has no image tower: give a CLIP with both towers")
    size = judge.clip.config.vision.size
    found = []
    for one, other in zip(a.split(1), b.split(1), strict=True):
        pairs = [_activations(judge, _squares(each.to(judge.device), size)) for each in (one, other)]
        apart = [(x - y).square().sum(-1).mean() for x, y in zip(*pairs)]
        found.append(torch.stack(apart).mean().cpu())
    return torch.stack(found) if found else torch.zeros(0)


def _squares(picture: Float[Tensor, "1 3 h w"], size: int) -> Float[Tensor, "k 3 s s"]:
    height, width = (math.ceil(side / size) * size for side in picture.shape[-2:])
    if picture.shape[-2:] != (height, width):
        picture = F.interpolate(picture, (height, width), mode="bilinear", align_corners=False)
    return rearrange(picture, "1 c (h s) (w z) -> (h w) c s z", s=size, z=size)


def _activations(judge: Encoder, pictures: Float[Tensor, "k 3 s s"]) -> list[Float[Tensor, "k m d"]]:
    """Patch tokens after each block, scaled to length 1; the class token is left out, as it has no position."""
    tower = judge.clip.vision
    assert tower is not None
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_hook(
            lambda module, given, out: seen.append(F.normalize(out[:, 1:].float(), dim=-1))
        )
        for block in tower.transformer.blocks
    ]
    try:
        judge.clip.encode_image(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
