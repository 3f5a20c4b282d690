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
        around = blur(self.pixels * self.mask, 4) / blur(self.mask, 4).clamp(min=1e-6)
        filled = torch.where(self.mask > 0, self.pixels, around)
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


def match_border(drawn: Float[Tensor, "1 3 s s"], known: Known, reach: int) -> Float[Tensor, "1 3 s s"]:
    """What was drawn, brought to the colours of the kept pixels near the border, and less the further away.

    The difference of the two over the known pixels is carried into the hole by averages of about `reach` pixels, the
    way that seamless cloning carries it by a membrane (Pérez et al. 2003).
    """
    near = blur(known.mask, reach)
    carried = blur((known.pixels - drawn) * known.mask, reach) / near.clamp(min=1e-6)
    # At a straight border half of the pixels around are known.
    return drawn + carried * (2 * near).clamp(max=1.0)


def blur(x: Float[Tensor, "b c h w"], reach: int) -> Float[Tensor, "b c h w"]:
    """Three box averages in each direction, nearly a Gaussian; beyond the border lies nothing."""
    width = 2 * max(1, reach // 2) + 1
    for kernel in ((width, 1), (1, width)):
        for _ in range(3):
            x = F.avg_pool2d(x, kernel, stride=1, padding=(kernel[0] // 2, kernel[1] // 2))
    return x
