"""Transparency of given pictures: pixels that an operation keeps keep their alpha, and the colours under it."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from unclip.images.files import resize
from unclip.images.tensors import from_uint8, to_tensor
from unclip.stages.inpainting import membrane


def alpha_of(picture: Image.Image) -> Image.Image | None:
    """Alpha of a picture; None where all of it is opaque."""
    if picture.mode != "RGBA":
        return None
    alpha = picture.getchannel("A")
    return None if alpha.getextrema() == (255, 255) else alpha


def is_soft(picture: Image.Image) -> bool:
    """Whether pixels of a picture are partly transparent, as a soft eraser or brush leaves them."""
    alpha = alpha_of(picture)
    return alpha is not None and any(alpha.histogram()[1:255])


def keep(
    drawn: Image.Image, picture: Image.Image, hole: Bool[Tensor, "h w"], *, left: int = 0, top: int = 0
) -> Image.Image:
    """A drawn picture with the given one's own pixels outside of the hole, to the bit of their colour and alpha.

    The given picture lies at `left`, `top`. The result is RGBA if any pixel of it is not opaque, else RGB; what was
    drawn is opaque.
    """
    if alpha_of(picture) is None:
        return drawn
    made = Image.new("RGBA", drawn.size)
    made.paste(picture, (left, top))
    made.paste(drawn.convert("RGBA"), mask=Image.fromarray(hole.numpy().astype(np.uint8) * np.uint8(255)))
    return made.convert("RGB") if alpha_of(made) is None else made


def with_alpha(drawn: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """A drawn picture with the alpha of a smaller one, enlarged bicubically; None leaves it opaque."""
    if alpha is not None:
        drawn.putalpha(resize(alpha, drawn.size))
    return drawn


def colours(picture: Image.Image) -> Float[Tensor, "3 h w"]:
    """Pixels in [-1, 1] as if nothing were transparent: where a picture shows nothing, its colours go on smoothly.

    For enlarging colours and alpha apart; colours flattened on white would leave a white seam.
    """
    alpha = alpha_of(picture)
    if alpha is None:
        return to_tensor(picture)
    pixels = torch.from_numpy(np.array(picture))
    straight = from_uint8(pixels[..., :3]).permute(2, 0, 1).contiguous()
    shown = (pixels[..., 3] > 0).float()
    if not shown.any():
        return to_tensor(picture)
    return membrane(straight[None], shown[None, None])[0].clamp(-1, 1)
