"""Conditioning augmentation of upsamplers: random crops of large pictures, and degraded small copies of them.

The first upsampler's small pictures are blurred a little, the second's go through the degradations of BSR in a random
order (arXiv 2204.06125, section 2.1; Ho et al. 2021, "Cascaded Diffusion Models"), so that the networks tolerate the
errors of decoders and cameras. All of it is a function of each sample's own `Noise`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unclip.images.tensors import from_uint8, jpeg, to_uint8
from unclip.rng import Noise

MARGIN = 8
"""Small pixels around a crop that are degraded with it, so that its edge is like its middle."""


@dataclass(frozen=True, kw_only=True)
class DegradationConfig:
    """How training degrades the small pictures: blur or BSR, then seams and noise.

    Raises ValueError for a value out of range.
    """

    method: Literal["blur", "bsr"] = "blur"
    """Area averaging and a Gaussian blur, or the degradations of BSR (`bsr`)."""
    bsr_strength: float = 1.0
    """Scale of BSR's degradations; 1 is the published one."""
    blur_kernel: int = 3
    blur_sigma: float = 0.6
    """Standard deviation of the blur, in small pixels."""
    blur_probability: float = 1.0
    """Share of the pictures that are blurred."""
    noise_level: float = 0.0
    """Largest standard deviation of the noise added to a small picture in [-1, 1]; 0 adds none."""
    seam_level: float = 0.0
    """Largest size of the seams between patches, as a decoder of patches leaves them; 0 adds none."""
    seam_patch: int = 8
    """Side of these patches, in small pixels."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        if self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel {self.blur_kernel} has no middle; choose an odd number")
        if self.seam_patch < 2:
            raise ValueError(f"seam_patch is {self.seam_patch}; a square with seams has at least 2 pixels")
        if not 0 <= self.bsr_strength <= 1.4:
            # JPEG has no quality below 1.
            raise ValueError(f"bsr_strength is {self.bsr_strength}; give 0 (no degradation) to 1.4")


class Crops(NamedTuple):
    """A crop of each picture: in the square window of `side` pixels at `corner` it begins at `offset` (down, right)."""

    corner: Int[Tensor, "b 2"]
    offset: Int[Tensor, "b 2"]
    side: int


def choose_crops(noise: Noise, side: int, *, size: int, factor: int) -> Crops:
    """Random crops of `size` in pictures of `side` pixels.

    They start at multiples of the enlargement `factor`, to which the small pixels' borders belong.
    """
    first = (noise.fork("crop").uniform(2) * ((side - size) // factor + 1)).long() * factor
    window = min(side, size + 2 * MARGIN * factor)
    corner = (first - MARGIN * factor).clamp(0, side - window)
    return Crops(corner, first - corner, window)


def cut(
    pictures: Float[Tensor, "b c h w"], offset: Int[Tensor, "b 2"], size: int
) -> Float[Tensor, "b c s s"]:
    """The square of `size` pixels at its own offset (down, right) of each picture; the host waits for no device."""
    device = pictures.device
    steps = torch.arange(size, device=device)
    down, right = (offset.to(device)[:, axis, None] + steps for axis in range(2))
    which = torch.arange(len(pictures), device=device)[:, None, None, None]
    channels = torch.arange(pictures.shape[1], device=device)[:, None, None]
    return pictures[which, channels, down[:, None, :, None], right[:, None, None, :]]


def degrade(
    picture: Float[Tensor, "b c h w"], noise: Noise, factor: int, config: DegradationConfig
) -> tuple[Float[Tensor, "b c h_low w_low"], Float[Tensor, " b"]]:
    """The degraded small copy of each large picture, and the level of the noise added to it."""
    return add_artifacts(reduce(picture, noise, factor, config), noise, config)


def reduce(
    picture: Float[Tensor, "b c h w"], noise: Noise, factor: int, config: DegradationConfig
) -> Float[Tensor, "b c h_low w_low"]:
    """The small copy of each large picture: areas averaged and some pictures blurred, or BSR.

    BSR works on the CPU, one picture at a time, as each has its own order of degradations.
    """
    with torch.autocast(picture.device.type, enabled=False):
        if config.method == "bsr":
            small = [
                bsr(one, factor, noise.of(k), config.bsr_strength) for k, one in enumerate(picture.cpu())
            ]
            return torch.stack(small).to(picture)
        low = F.avg_pool2d(picture, factor)
        if config.blur_sigma > 0:
            blurred = noise.fork("blur").uniform().to(low.device) < config.blur_probability
            low = torch.where(
                blurred[:, None, None, None], gaussian_blur(low, config.blur_kernel, config.blur_sigma), low
            )
        return low


def add_artifacts(
    low: Float[Tensor, "b c h w"], noise: Noise, config: DegradationConfig
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"]]:
    """Small pictures with seams and noise, of levels uniform in [0, seam_level] and [0, noise_level]; the noise's level."""
    with torch.autocast(low.device.type, enabled=False):
        if config.seam_level > 0:
            depth = (noise.fork("seam level").uniform() * config.seam_level).to(low)
            low = low + depth[:, None, None, None] * seams(low, noise.fork("seams"), config.seam_patch)
        level = (noise.fork("noise level").uniform() * config.noise_level).to(low)
        if config.noise_level > 0:
            low = low + level[:, None, None, None] * noise.fork("noise").normal(*low.shape[1:]).to(low)
    return low, level


def seams(like: Float[Tensor, "b c h w"], noise: Noise, patch: int) -> Float[Tensor, "b c h w"]:
    """A slanting plane of its own for every square of `patch` pixels and every channel, of variance 1.

    A plane has an offset and two slopes, of which the offset holds half of the variance. The squares of each picture
    begin somewhere else, as crops do.
    """
    count, channels, *sides = like.shape
    begins = noise.fork("begin").integers(patch, 2).to(like.device)
    places = [
        torch.arange(side, device=like.device) + begin[:, None]
        for side, begin in zip(sides, begins.unbind(1))
    ]
    planes = noise.fork("planes").normal(*(side // patch + 2 for side in sides), 3 * channels).to(like)
    down, right = (place // patch for place in places)
    which = torch.arange(count, device=like.device)
    squares = planes[which[:, None, None], down[:, :, None], right[:, None, :]]
    offset, slope_down, slope_right = rearrange(squares, "b h w (k c) -> k b c h w", k=3)
    # Of mean square 1 over a square.
    ramps = [(place % patch - (patch - 1) / 2) / ((patch**2 - 1) / 12) ** 0.5 for place in places]
    ramp_down, ramp_right = ramps[0].to(like)[:, None, :, None], ramps[1].to(like)[:, None, None, :]
    return (2**0.5 * offset + slope_down * ramp_down + slope_right * ramp_right) / 2


def gaussian_blur(picture: Float[Tensor, "b c h w"], kernel: int, sigma: float) -> Float[Tensor, "b c h w"]:
    """A `kernel` x `kernel` Gaussian of standard deviation `sigma` pixels; borders are reflected."""
    return _filter(picture, _gaussian(kernel // 2, (sigma, sigma), 0.0).to(picture))


class _Step(NamedTuple):
    """Settings of one degradation: the small size to arrive at, the enlargement, and its own stream of noise."""

    size: tuple[int, int]
    factor: int
    noise: Noise
    strength: float

    def draw(self, low: float, high: float) -> float:
        return low + (high - low) * self.noise.uniform().item()


def bsr(
    picture: Float[Tensor, "c h w"], factor: int, noise: Noise, strength: float = 1.0
) -> Float[Tensor, "c h_low w_low"]:
    """A picture in [-1, 1] reduced by `factor` and degraded by BSR, with one stream of `noise`.

    Two blurs, the reduction in size, noise of two kinds and JPEG follow each other in a random order, so that some of
    them apply to the large picture and some to the small one. `strength` scales the blurs' widths, the noise and what JPEG
    loses; 1 has the ranges of Zhang et al. for an enlargement by 4. Their camera pipeline is
    reduced to its shot noise.
    """
    size = (picture.shape[-2] // factor, picture.shape[-1] // factor)
    for index in noise.fork("order").uniform(len(_DEGRADATIONS))[0].argsort().tolist():
        act = _DEGRADATIONS[index]
        picture = act(picture, _Step(size, factor, noise.fork(act.__name__), strength)).clamp(-1, 1)
    return picture


# The ranges are those of Zhang et al. 2021, "Designing a Practical Degradation Model for Deep Blind Image
# Super-Resolution" (arXiv 2103.14006), section 3.
def _isotropic_blur(picture: Tensor, step: _Step) -> Tensor:
    sigma = step.strength * step.draw(0.1, 2.8)
    return _filter(picture[None], _gaussian(_radius(sigma, picture), (sigma, sigma), 0.0))[0]


def _anisotropic_blur(picture: Tensor, step: _Step) -> Tensor:
    sigmas = step.strength * step.draw(0.5, 8.0), step.strength * step.draw(0.5, 8.0)
    kernel = _gaussian(_radius(max(sigmas), picture), sigmas, step.draw(0.0, math.pi))
    return _filter(picture[None], kernel)[0]


def _reduction(picture: Tensor, step: _Step) -> Tensor:
    """To the small size by any filter: a quarter of the time by way of a size in between, or larger than this one."""
    if step.draw(0.0, 1.0) < 0.25:
        scale = step.draw(0.5, step.factor)
        between = (round(picture.shape[-2] / scale), round(picture.shape[-1] / scale))
        picture = _resize(picture, between, step.draw(0.0, 1.0))
    return _resize(picture, step.size, step.draw(0.0, 1.0))


def _gaussian_noise(picture: Tensor, step: _Step) -> Tensor:
    """On every channel for itself, the same on all, or correlated between them."""
    level, kind = step.strength * step.draw(1.0, 25.0) / 127.5, step.draw(0.0, 1.0)
    noise = step.noise.normal(*picture.shape)[0]
    if kind < 0.4:
        noise = noise[:1].expand_as(picture)
    elif kind < 0.6:
        mixing = F.normalize(step.noise.normal(len(picture), len(picture))[0], dim=1)
        noise = torch.einsum("i j, j h w -> i h w", mixing, noise)
    return picture + level * noise


def _shot_noise(picture: Tensor, step: _Step) -> Tensor:
    """A quarter of the time: photons are counted, and where it is brighter the count varies more (nearly Gaussian)."""
    if step.draw(0.0, 1.0) > 0.25:
        return picture
    photons = 10 ** step.draw(2.0, 4.0)
    brightness = (picture + 1) / 2
    noise = step.noise.normal(*picture.shape)[0]
    if step.draw(0.0, 1.0) < 0.5:
        brightness, noise = brightness.mean(0, keepdim=True), noise[:1]
    return picture + 2 * step.strength * (brightness / photons).sqrt() * noise


def _jpeg(picture: Tensor, step: _Step) -> Tensor:
    """Three quarters of the time."""
    if step.draw(0.0, 1.0) > 0.75:
        return picture
    quality = round(95 - step.strength * step.draw(0.0, 65.0))
    return from_uint8(jpeg(to_uint8(picture), max(1, quality)))


_DEGRADATIONS: tuple[Callable[[Tensor, _Step], Tensor], ...] = (
    _isotropic_blur,
    _anisotropic_blur,
    _reduction,
    _gaussian_noise,
    _shot_noise,
    _jpeg,
)

_Mode = Literal["bilinear", "bicubic"]


def _resize(picture: Tensor, size: tuple[int, int], which: float) -> Tensor:
    """By one of four filters, as `which` in (0, 1) says."""
    name = ("nearest-exact", "area", "bilinear", "bicubic")[int(4 * which)]
    if name in ("nearest-exact", "area"):
        return F.interpolate(picture[None], size=size, mode=name)[0]
    return F.interpolate(picture[None], size=size, mode=cast(_Mode, name), antialias=True)[0]


def _radius(sigma: float, picture: Tensor) -> int:
    """Of a kernel that holds a Gaussian, at most 21 pixels wide, and that a small picture can be padded for."""
    return min(10, max(1, math.ceil(3 * sigma)), *(side - 1 for side in picture.shape[-2:]))


def _gaussian(radius: int, sigmas: tuple[float, float], angle: float) -> Float[Tensor, "k k"]:
    """A normalised Gaussian with `sigmas` pixels along its axes, the first of them turned by `angle` from the row."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    along = math.cos(angle) * offsets[None] + math.sin(angle) * offsets[:, None]
    across = math.cos(angle) * offsets[:, None] - math.sin(angle) * offsets[None]
    weights = torch.exp(-0.5 * ((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2))
    return (weights / weights.sum()).float()


def _filter(picture: Tensor, kernel: Tensor) -> Tensor:
    radius, channels = len(kernel) // 2, picture.shape[1]
    padded = F.pad(picture, [radius] * 4, mode="reflect")
    weights = rearrange(kernel, "h w -> 1 1 h w").expand(channels, 1, -1, -1)
    return F.conv2d(padded, weights, groups=channels)
