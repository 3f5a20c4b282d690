"""The upsamplers of unCLIP: diffusion on large pictures, given the small ones (arXiv 2204.06125, section 2.1).

They are unconditional ADM U-Nets without attention: the small picture, resized up, is concatenated to the noisy one.
In training the small pictures are corrupted (`unclip.data.degradation`), so that the net forgives what a decoder gets
wrong (Ho et al. 2021, "Cascaded Diffusion Models", conditioning augmentation), and only crops are seen; as there are
only convolutions, the same net then runs at full size.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.unet import Unet, UnetConfig
from unclip.nn.embeddings import LabelEmbedding


@dataclass(frozen=True, kw_only=True)
class UpsamplerConfig:
    """`net` on pictures of `high_size` given ones of `low_size`, and how training corrupts and crops them.

    `net.in_channels` counts the noisy picture and the small one (6 for RGB). With `degradation` "blur", `blur_kernel`
    and `blur_sigma` are the Gaussian blur of the small picture, in its pixels, applied to the fraction
    `blur_probability` of them; "bsr" takes the degradations of BSR, scaled by `bsr_strength`, in its place.
    `noise_level` is the largest standard deviation of the noise added to it (0 adds none), on the scale of pictures in
    [-1, 1]; a net with a `vector_width` is told how much there was. `seam_level` is the same for squares of `seam_patch`
    of its pixels, each a little too bright or dark and slanting, as a decoder of patches leaves them. `crop_fraction`
    is the side of a training crop over the side of the picture. With `residual` the net predicts the difference from
    the resized small picture, which only makes sense for a process that predicts x0. With `last_step` there is a second
    net of the same shape for the last step of sampling (Karlo's was fine-tuned with perceptual and adversarial losses).
    """

    kind: Literal["upsampler"] = "upsampler"
    net: UnetConfig
    process: ProcessConfig
    low_size: int = 64
    high_size: int = 256
    degradation: Literal["blur", "bsr"] = "blur"
    bsr_strength: float = 1.0
    blur_kernel: int = 3
    blur_sigma: float = 0.6
    blur_probability: float = 1.0
    noise_level: float = 0.0
    seam_level: float = 0.0
    seam_patch: int = 8
    crop_fraction: float = 0.25
    residual: bool = False
    last_step: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that do not fit together and for switches that contradict each other."""
        if self.high_size % self.low_size:
            raise ValueError(f"high_size {self.high_size} is no multiple of low_size {self.low_size}")
        if self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel {self.blur_kernel} has no middle; choose an odd number")
        if self.seam_patch < 2:
            raise ValueError(f"seam_patch is {self.seam_patch}; a square with seams has at least 2 pixels")
        if not 0 <= self.bsr_strength <= 1.4:
            # JPEG knows no quality below 1.
            raise ValueError(f"bsr_strength is {self.bsr_strength}; give 0 (no harm done) to 1.4")
        if (
            self.crop_size % self.factor
            or self.crop_size % self.net.divisor
            or self.crop_size > self.high_size
        ):
            raise ValueError(
                f"a crop of {self.crop_size} pixels must be a multiple of {self.factor} and of {self.net.divisor}"
                f" and at most {self.high_size}; change crop_fraction {self.crop_fraction}"
            )
        outputs = self.net.in_channels // 2 * (1 + self.process.learned_variance)
        if self.net.in_channels % 2 or self.net.out_channels != outputs:
            raise ValueError(
                "net.in_channels must count the picture twice and net.out_channels once (twice with a learned"
                f" variance), not {self.net.in_channels} and {self.net.out_channels}"
            )
        if self.residual and (self.process.parametrization != "x0" or self.process.learned_variance):
            raise ValueError("residual needs a process that predicts 'x0' and no variance; set it to False")

    @property
    def factor(self) -> int:
        """How many times larger the pictures become."""
        return self.high_size // self.low_size

    @property
    def crop_size(self) -> int:
        """The side of a training crop, in pixels of the large picture."""
        return round(self.high_size * self.crop_fraction)


@dataclass(frozen=True, eq=False)
class UpsamplerCondition:
    """What an upsampler is given: `low`, resized to the large size, in [-1, 1]; and the level of the noise in it."""

    low: Float[Tensor, "b c h w"]
    noise_level: Float[Tensor, " b"]


class Upsampler(nn.Module):
    """A `Unet` on the noisy large picture and the resized small one."""

    def __init__(self, config: UpsamplerConfig):
        super().__init__()
        self.config = config
        self.net = Unet(config.net)
        self.last_net = Unet(config.net) if config.last_step else None
        # Noise of standard deviation 0 to 1 becomes a label on the scale of DDPM's timesteps.
        self.noise_label: LabelEmbedding | None = None
        if config.net.vector_width is not None:
            self.noise_label = LabelEmbedding(
                config.net.vector_width, frequencies=config.net.channels, scale=1000.0
            )

    def condition(self, low: Float[Tensor, "b c h w"], noise_level: float = 0.0) -> UpsamplerCondition:
        """The condition for sampling from small pictures in [-1, 1] that hold noise of `noise_level` already."""
        level = torch.full((len(low),), noise_level, device=low.device)
        return UpsamplerCondition(resize_up(low, self.config.factor), level)

    def forward(
        self, x: Float[Tensor, "b c h w"], label: Float[Tensor, " b"], condition: UpsamplerCondition
    ) -> Float[Tensor, "b c_out h w"]:
        """The raw prediction for noisy pictures `x`. Raises ValueError when `condition.low` is of another size."""
        return self.predict(self.net, x, label, condition)

    def predict(
        self,
        net: nn.Module,
        x: Float[Tensor, "b c h w"],
        label: Float[Tensor, " b"],
        condition: UpsamplerCondition,
    ) -> Float[Tensor, "b c_out h w"]:
        """`forward` with another network in place of `net`, such as `last_net` or a tiled one."""
        low = condition.low
        if low.shape[-2:] != x.shape[-2:]:
            raise ValueError(
                f"the condition is {tuple(low.shape[-2:])} and the picture {tuple(x.shape[-2:])}; resize it up first"
            )
        vector = None
        if self.noise_label is not None:
            vector = self.noise_label(condition.noise_level)
        prediction = net(torch.cat([x, low.to(x.dtype)], dim=1), label, vector)
        return prediction + low if self.config.residual else prediction


def resize_up(low: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h*{factor} w*{factor}"]:
    """Bicubic enlargement, as Karlo's (PIL's kernel, a = -0.5)."""
    size = [side * factor for side in low.shape[-2:]]
    return F.interpolate(low.float(), size=size, mode="bicubic", antialias=True, align_corners=False)
