"""Quality of the first upsampler against bicubic enlargement, on real drawings reduced and enlarged again."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from unclip.data.sample import BadSample, Dataset
from unclip.evaluate.features import Encoder
from unclip.evaluate.perceptual import perceptual_distance
from unclip.generate.model import Model
from unclip.images import from_uint8, resize, to_image, to_tensor
from unclip.stages.likeness import psnr


@dataclass(frozen=True, kw_only=True)
class Enlarged:
    """Enlarged pictures compared with the originals: mean PSNR in dB, and mean perceptual distance by the judge."""

    psnr: float
    perceptual: float


def evenly_spaced(dataset: Dataset, count: int, size: int) -> UInt8[Tensor, "n 3 s s"] | None:
    """At most `count` pictures at `size`, evenly spaced over a data set, without unusable ones; None where no picture is
    large enough."""
    found: list[np.ndarray] = []
    for row in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist():
        try:
            if min(dataset.picture(row, None).shape[1:]) >= size:
                found.append(dataset.picture(row, size))
        except BadSample:
            continue
    return torch.from_numpy(np.stack(found)) if found else None


def upsampling(
    model: Model, judge: Encoder, originals: UInt8[Tensor, "n 3 h w"], *, seed: int = 0
) -> dict[str, Enlarged]:
    """Quality of originals reduced to the decoder's size and enlarged, under the keys "upsampler" and "bicubic"."""
    low, high = model.sizes[:2]
    if originals.shape[-2:] != (high, high):
        raise ValueError(
            f"the originals are {tuple(originals.shape[-2:])} pixels, the upsampler makes {high}"
        )
    real, large = from_uint8(originals), {"upsampler": [], "bicubic": []}
    for number, one in enumerate(real):
        small = resize(to_image(one), low)
        made = model.upscale(small, size=high, seed=seed + number)
        large["upsampler"].append(to_tensor(made.image))
        large["bicubic"].append(to_tensor(resize(small, high)))
    return {
        name: Enlarged(
            psnr=sum(psnr(one, other) for one, other in zip(pictures, real)) / len(real),
            perceptual=perceptual_distance(judge, torch.stack(pictures), real).mean().item(),
        )
        for name, pictures in large.items()
    }
