"""What is there already of a picture that is drawn anew in part, at every size; and borders at which nothing shows."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unclip.diffusion.denoiser import Denoiser
from unclip.diffusion.guidance import switch
from unclip.diffusion.inpainting import keep_known


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
    that were drawn within (Pérez et al. 2003, "Poisson Image Editing").
    """
    hole = 1 - known.mask
    near = _around(hole)
    inside = _around(drawn * hole) / near.clamp(min=1e-6)
    border = known.mask * (near > 0)
    return drawn + hole * membrane(known.pixels - inside, border, reach)


def membrane(
    values: Float[Tensor, "b c h w"],
    fixed: Float[Tensor, "b 1 h w"],
    reach: float | None = None,
    step: int = 1,
) -> Float[Tensor, "b c h w"]:
    """The smooth surface that has the `values` where `fixed` is 1: every other pixel is the mean of its neighbours.

    With a `reach` it falls to 0 so many pixels away from them. Solved from coarse to fine, a pixel being `step` of the
    finest; nearly exact, as the eye needs it.
    """
    height, width = values.shape[-2:]
    if min(height, width) <= 4:
        surface, rounds = values * fixed, 64
    else:
        size = (-(-height // 2), -(-width // 2))
        share = F.adaptive_avg_pool2d(fixed, size)
        coarse = F.adaptive_avg_pool2d(values * fixed, size) / share.clamp(min=1e-6)
        surface = membrane(coarse, (share > 0).to(fixed), reach, 2 * step)
        surface = F.interpolate(surface, size=(height, width), mode="bilinear", align_corners=False)
        rounds = 24
    # u'' = u / reach² on the grid: what falls to 1/e over `reach`.
    kept = 1.0 if reach is None else 1 / (1 + (step / (2 * reach)) ** 2)
    for _ in range(rounds):
        around = F.pad(surface, (1, 1, 1, 1), mode="replicate")
        across = around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
        mean = (across + around[..., :-2, 1:-1] + around[..., 2:, 1:-1]) / 4
        surface = torch.where(fixed > 0, values, kept * mean)
    return surface


def _around(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The mean of the 3 x 3 pixels around each."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
