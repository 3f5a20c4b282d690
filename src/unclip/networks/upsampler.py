"""The upsamplers of unCLIP: diffusion on large pictures, given the small ones (arXiv 2204.06125, section 2.1).

They are unconditional ADM U-Nets without attention: the small picture, resized up, is concatenated to the noisy one.
As there are only convolutions, a net trained on crops runs at full size.
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
    """`net` on pictures of `high_size` given ones of `low_size`.

    `net.in_channels` counts the noisy picture and the small one (6 for RGB); a net with a `vector_width` also reads the
    level of the noise in the small picture. With `residual` the net predicts the difference from the resized small
    picture, which only makes sense for a process that predicts x0. With `last_step` there is a second net of the same
    shape for the last step of sampling (Karlo's was fine-tuned with perceptual and adversarial losses).
    """

    kind: Literal["upsampler"] = "upsampler"
    net: UnetConfig
    process: ProcessConfig
    low_size: int = 64
    high_size: int = 256
    residual: bool = False
    last_step: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that do not fit together and for switches that contradict each other."""
        if self.high_size % self.low_size:
            raise ValueError(f"high_size {self.high_size} is no multiple of low_size {self.low_size}")
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
