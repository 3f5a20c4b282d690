"""Pixels as tensors: the one place that knows that a picture is float in [-1, 1] and a file is uint8 in [0, 255]."""

import io

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from unclip.images.files import flatten


def from_uint8(pixels: UInt8[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
    """float32 in [-1, 1] from bytes: 0 becomes -1 and 255 becomes 1."""
    return pixels.float() / 127.5 - 1.0


def to_uint8(x: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b c h w"]:
    """The nearest bytes; values outside [-1, 1] are clipped. Undoes `from_uint8` exactly."""
    return ((x.float() + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)


def to_tensor(image: Image.Image) -> Float[Tensor, "3 h w"]:
    """The pixels of a picture in [-1, 1]; what is transparent shows white."""
    # The copy gives torch memory that it may write to.
    pixels = torch.from_numpy(np.array(flatten(image), dtype=np.uint8))
    return from_uint8(rearrange(pixels, "h w c -> c h w")).contiguous()


def to_image(x: Float[Tensor, "3 h w"]) -> Image.Image:
    """An RGB picture from pixels in [-1, 1]."""
    return Image.fromarray(rearrange(to_uint8(x), "c h w -> h w c").cpu().contiguous().numpy())


def jpeg(pixels: UInt8[Tensor, "3 h w"], quality: int) -> UInt8[Tensor, "3 h w"]:
    """What is left of a picture that was kept as a JPEG file of `quality` 1 to 95 (ITU-T T.81)."""
    buffer = io.BytesIO()
    Image.fromarray(rearrange(pixels, "c h w -> h w c").contiguous().numpy()).save(
        buffer, "JPEG", quality=quality
    )
    with Image.open(buffer, formats=["JPEG"]) as image:
        return rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w").contiguous()
