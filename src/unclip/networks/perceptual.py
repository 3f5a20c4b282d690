"""Perceptual distance: differences between the activations of a CLIP's image tower (as LPIPS, Zhang et al. 2018)."""

import math

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from unclip.networks.clip import Clip


def activation_distance(
    clip: Clip, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, " b"]:
    """Distance of each picture of `a` to the same row of `b`, both in [-1, 1]; 0 for equal ones, at most 4. Differentiable.

    Pictures are cut into squares of the tower's input size, so that every pixel counts; other sizes are enlarged to the
    next multiple. Activations after each block are scaled to length 1 at every patch; their squared differences are
    averaged over patches, blocks and squares. This is LPIPS (equation 1) without its learned weights. Raises ValueError
    for a CLIP without its image tower.
    """
    if clip.vision is None:
        raise ValueError(
            "this CLIP has no image tower, so it cannot compare pictures: take one that has both"
        )
    size, count = clip.config.vision.size, len(a)
    both = _squares(torch.cat([a, b]), size)
    apart = []
    for seen in _activations(clip, both):
        one, other = rearrange(seen, "(two b k) m d -> two b (k m) d", two=2, b=count)
        apart.append((one - other).square().sum(-1).mean(1))
    return torch.stack(apart).mean(0)


def moved(
    pictures: Float[Tensor, "b 3 h w"], offsets: Int64[Tensor, "b 2"], most: int
) -> Float[Tensor, "b 3 h w"]:
    """Pictures shifted by up to `most` pixels (down, right), each by its own offset in [-most, most]; edges are repeated."""
    height, width = pictures.shape[-2:]
    padded = F.pad(pictures, [most] * 4, mode="replicate")
    rows = [
        picture[:, most - down : most - down + height, most - right : most - right + width]
        for picture, (down, right) in zip(padded, offsets.tolist())
    ]
    return torch.stack(rows)


def _squares(pictures: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "k 3 s s"]:
    height, width = (math.ceil(side / size) * size for side in pictures.shape[-2:])
    if pictures.shape[-2:] != (height, width):
        pictures = F.interpolate(pictures, (height, width), mode="bilinear", align_corners=False)
    return rearrange(pictures, "b c (h s) (w z) -> (b h w) c s z", s=size, z=size)


def _activations(clip: Clip, pictures: Float[Tensor, "k 3 s s"]) -> list[Float[Tensor, "k m d"]]:
    """Patch tokens after each block, scaled to length 1; the class token is left out, as it has no position."""
    tower = clip.vision
    assert tower is not None
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_hook(
            lambda module, given, out: seen.append(F.normalize(out[:, 1:].float(), dim=-1))
        )
        for block in tower.transformer.blocks
    ]
    try:
        clip.encode_image(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
