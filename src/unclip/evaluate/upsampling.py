"""What the first upsampler adds: real drawings made small and large again, beside bicubic enlargement."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from unclip.data.sample import BadSample, Dataset
from unclip.evaluate.features import Encoder
from unclip.evaluate.perceptual import perceptual_distance
from unclip.generate.inversion import psnr
from unclip.generate.system import System
from unclip.images import from_uint8, resize, to_image, to_tensor


@dataclass(frozen=True, kw_only=True)
class Enlarged:
    """Enlarged pictures against the originals: mean PSNR in dB, and mean distance in the judge's activations."""

    psnr: float
    perceptual: float


def spread(dataset: Dataset, count: int, size: int) -> UInt8[Tensor, "n 3 s s"] | None:
    """At most `count` pictures from all over a data set, at `size`; bad ones are left out. None where there are none as
    large as that."""
    found: list[np.ndarray] = []
    for row in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist():
        try:
            if min(dataset.picture(row, None).shape[1:]) >= size:
                found.append(dataset.picture(row, size))
        except BadSample:
            continue
    return torch.from_numpy(np.stack(found)) if found else None


def upsampling(
    system: System, judge: Encoder, originals: UInt8[Tensor, "n 3 h w"], *, seed: int = 0
) -> dict[str, Enlarged]:
    """Originals of the upsampler's size, reduced to the decoder's and enlarged by "upsampler" and by "bicubic"."""
    low, high = system.sizes[:2]
    if originals.shape[-2:] != (high, high):
        raise ValueError(
            f"the originals are {tuple(originals.shape[-2:])} pixels, the upsampler makes {high}"
        )
    real, large = from_uint8(originals), {"upsampler": [], "bicubic": []}
    for number, one in enumerate(real):
        small = resize(to_image(one), low)
        made = system.upscale(small, size=high, seed=seed + number)
        large["upsampler"].append(to_tensor(made.image))
        large["bicubic"].append(to_tensor(resize(small, high)))
    return {
        name: Enlarged(
            psnr=sum(psnr(one, other) for one, other in zip(pictures, real)) / len(real),
            perceptual=perceptual_distance(judge, torch.stack(pictures), real).mean().item(),
        )
        for name, pictures in large.items()
    }
