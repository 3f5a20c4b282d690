"""Inpainting: the known pixels at every resolution, and seamless blending at the mask's border (Poisson)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unclip.diffusion.denoiser import Denoiser, NoiseSource
from unclip.diffusion.guidance import switch
from unclip.diffusion.inpainting import keep_known
from unclip.stages.codec import Codec
from unclip.stages.extent import Extent

EDGE = 0.15
"""Difference between neighbouring pixels, on the scale of [-1, 1], across which blending hardly diffuses a colour."""


class InpaintingReference(NamedTuple):
    """A picture in [-1, 1] and its mask: 1 where pixels are known, 0 in the hole."""

    pixels: Float[Tensor, "1 c h w"]
    mask: Float[Tensor, "1 1 h w"]

    def in_state(self, codec: Codec, noise: NoiseSource | None = None) -> "InpaintingReference":
        """The reference in the state of a codec, a sample of it with `noise`; an element is known if all its pixels are."""
        if codec.factor == 1:
            return self
        height, width = (side // codec.factor for side in self.mask.shape[-2:])
        mask = 1 - F.adaptive_max_pool2d(1 - self.mask, (height, width))
        return InpaintingReference(codec.encode(self.pixels, noise), mask)

    def at(self, extent: Extent) -> "InpaintingReference":
        """The reference at another size of about its shape; a pixel is known if all the pixels it covers are.

        No pixel of the hole contributes to a known one.
        """
        size, own = (extent.height, extent.width), Extent(*self.pixels.shape[-2:])
        if own == extent:
            return self
        mask = 1 - F.adaptive_max_pool2d(1 - self.mask, size)
        if extent.area < own.area:
            return InpaintingReference(F.adaptive_avg_pool2d(self.pixels, size), mask)
        filled = membrane(self.pixels, self.mask)
        pixels = F.interpolate(filled, size=size, mode="bicubic", align_corners=False)
        return InpaintingReference(pixels.clamp(-1, 1), mask)

    def kept_until_last(self, denoise: Denoiser, grid: Float[Tensor, " levels"]) -> Denoiser:
        """`denoise` with the known pixels put into its estimates, except at the last step down the grid.

        The last estimate is the network's own everywhere, so that its offset from the known pixels can be corrected in
        the hole as well (`match_border`).
        """
        kept = keep_known(denoise, self.pixels, self.mask)
        return switch(kept, denoise, float(grid[-2]))

    def to(self, device: torch.device) -> "InpaintingReference":
        """The reference on a device."""
        return InpaintingReference(self.pixels.to(device), self.mask.to(device))


def match_border(
    drawn: Float[Tensor, "1 3 h w"], known: InpaintingReference, reach: float | None = None
) -> Float[Tensor, "1 3 h w"]:
    """Blended picture: the filled hole shifted to the colours of the known pixels around it.

    The offset at the border is spread over the hole, or over about `reach` pixels, by a membrane (Pérez et al. 2003,
    "Poisson Image Editing"). The membrane stops at edges of the filled content, so a background keeps its colour beside
    an object whose colour is corrected.
    """
    hole = 1 - known.mask
    near = _around(hole)
    inside = _around(drawn * hole) / near.clamp(min=1e-6)
    border = known.mask * (near > 0)
    guide = torch.where(border > 0, inside, drawn).where(hole + border > 0, torch.nan)
    return drawn + hole * membrane(known.pixels - inside, border, reach, guide)


def membrane(
    values: Float[Tensor, "b c h w"],
    fixed: Float[Tensor, "b 1 h w"],
    reach: float | None = None,
    guide: Float[Tensor, "b k h w"] | None = None,
    step: int = 1,
) -> Float[Tensor, "b c h w"]:
    """Smooth surface with the given `values` where `fixed` is 1: every other pixel is the mean of its neighbours.

    With `reach`, the surface decays to 0 over so many pixels. With `guide`, neighbours are weighted by the similarity of
    the guide, so that the surface breaks at the guide's edges; where the guide is NaN there is no surface. Solved from
    coarse to fine, approximately; `step` is the side of a pixel in pixels of the finest level.
    """
    height, width = values.shape[-2:]
    if min(height, width) <= 4:
        surface, rounds = values * fixed, 64
    else:
        size = (-(-height // 2), -(-width // 2))
        share = F.adaptive_avg_pool2d(fixed, size)
        coarse = F.adaptive_avg_pool2d(values * fixed, size) / share.clamp(min=1e-6)
        smaller = None if guide is None else _mean_of_numbers(guide, size)
        surface = membrane(coarse, (share > 0).to(fixed), reach, smaller, 2 * step)
        surface = F.interpolate(surface, size=(height, width), mode="bilinear", align_corners=False)
        rounds = 24 if guide is None else 48  # offsets that crossed an edge on the coarse level have to decay
    weights = [torch.ones_like(fixed)] * 4
    if guide is not None:
        unlike = ((other - guide).square().mean(1, keepdim=True) for other in _neighbours(guide))
        weights = [torch.exp(-each / (2 * EDGE**2)).nan_to_num(0) for each in unlike]
    # u'' = u / reach² on the grid: what falls to 1/e over `reach`.
    pull = 1e-6 if reach is None else 4 * (step / (2 * reach)) ** 2
    for _ in range(rounds):
        around = sum(weight * other for weight, other in zip(weights, _neighbours(surface)))
        surface = torch.where(fixed > 0, values, around / (sum(weights) + pull))
    return surface


def _mean_of_numbers(
    x: Float[Tensor, "b c h w"], size: tuple[int, int]
) -> Float[Tensor, "b c h_small w_small"]:
    """Mean over the pixels that are not NaN, at a smaller size."""
    share = F.adaptive_avg_pool2d(1 - x.isnan().to(x), size)
    return F.adaptive_avg_pool2d(x.nan_to_num(0), size) / share  # 0 / 0 is NaN again


def _neighbours(x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b c h w"]]:
    """Left, right, upper and lower neighbour of each pixel; at the border the pixel itself."""
    around = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across, down = around[..., 1:-1, :], around[..., :, 1:-1]
    return [across[..., :-2], across[..., 2:], down[..., :-2, :], down[..., 2:, :]]


def _around(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Mean of the 3 x 3 pixels around each pixel."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
