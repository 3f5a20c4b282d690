"""What is there already of a picture that is drawn anew in part, at every size; and borders at which nothing shows."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unclip.diffusion.denoiser import Denoiser
from unclip.diffusion.guidance import switch
from unclip.diffusion.inpainting import keep_known

EDGE = 0.15
"""The difference between neighbouring pixels in [-1, 1] over which a colour is hardly handed on."""


class Known(NamedTuple):
    """A picture in [-1, 1], and where it holds: `mask` is 1 there and 0 in the hole."""

    pixels: Float[Tensor, "1 3 s s"]
    mask: Float[Tensor, "1 1 s s"]

    def at(self, size: int) -> "Known":
        """The same at `size` pixels a side; a pixel is known if all that it covers is.

        Nothing of what lies in the hole shines through, at its edge neither.
        """
        side = self.pixels.shape[-1]
        if size == side:
            return self
        mask = 1 - F.adaptive_max_pool2d(1 - self.mask, size)
        if size < side:
            return Known(F.adaptive_avg_pool2d(self.pixels, size), mask)
        filled = membrane(self.pixels, self.mask)
        pixels = F.interpolate(filled, size=size, mode="bicubic", align_corners=False)
        return Known(pixels.clamp(-1, 1), mask)

    def kept_until_last(self, denoise: Denoiser, grid: Float[Tensor, " levels"]) -> Denoiser:
        """`denoise` with the known pixels in its estimates, but for the last step of a walk down the grid.

        What that says of them is the net's own: where it differs from them, it differs in the hole too.
        """
        kept = keep_known(denoise, self.pixels, self.mask)
        return switch(kept, denoise, float(grid[-2]))

    def to(self, device: torch.device) -> "Known":
        """The same on a device."""
        return Known(self.pixels.to(device), self.mask.to(device))


def match_border(
    drawn: Float[Tensor, "1 3 s s"], known: Known, reach: float | None = None
) -> Float[Tensor, "1 3 s s"]:
    """What was drawn in the hole, brought to the colours of the kept pixels around it: all of it, or a border of about
    `reach` pixels.

    What is missing at the border to the colours outside is spread over the hole by a membrane, which leaves all edges
    that were drawn within (Pérez et al. 2003, "Poisson Image Editing") and does not cross them: a background stays as it
    is beside a thing that is brought to another colour.
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
    """The smooth surface that has the `values` where `fixed` is 1: every other pixel is the mean of its neighbours.

    With a `reach` it falls to 0 so many pixels away from them. With a `guide` neighbours count by how alike the guide is
    there, so that the surface is not held together across the guide's edges; where that is NaN, there is no surface.
    Solved from coarse to fine, a pixel being `step` of the finest; nearly exact, as the eye needs it.
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
        rounds = 24 if guide is None else 48  # what came across an edge has to go again
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
    """The picture in a smaller size, what is NaN in it left out."""
    share = F.adaptive_avg_pool2d(1 - x.isnan().to(x), size)
    return F.adaptive_avg_pool2d(x.nan_to_num(0), size) / share  # 0 / 0 is NaN again


def _neighbours(x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b c h w"]]:
    """What lies to the left, to the right, above and below each pixel; at the border the pixel itself."""
    around = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across, down = around[..., 1:-1, :], around[..., :, 1:-1]
    return [across[..., :-2], across[..., 2:], down[..., :-2, :], down[..., 2:, :]]


def _around(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The mean of the 3 x 3 pixels around each."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
