"""The patch discriminator of image-to-image GANs (Isola et al. 2017): a score for each patch of a picture."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The shape of a `PatchDiscriminator`.

    `layers` counts the convolutions that halve the picture; each score sees a patch of 16 pixels with 1, 34 with 2 and 70
    with 3. "batch" norms are those of the paper and of latent diffusion, and mix the pictures of a micro-batch; "group" norms
    see each picture alone.
    """

    channels: int = 64
    layers: int = 3
    norm: Literal["batch", "group"] = "group"
    groups: int = 32

    def __post_init__(self) -> None:
        """Raise ValueError for no layers, and for channels that do not split into groups."""
        if self.layers < 1:
            raise ValueError(f"layers is {self.layers}; a discriminator needs at least 1")
        if self.norm == "group" and self.channels % self.groups:
            raise ValueError(f"{self.channels} channels do not split into {self.groups} norm groups")


class SharedBatchNorm(nn.BatchNorm2d):
    """A batch norm over the samples of all processes, where `gather` is set to what collects rows of samples."""

    gather: Callable[[Tensor], Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """(b, c, h, w), normalised by the statistics of the whole micro-batch in training."""
        if self.gather is None or not self.training:
            return super().forward(input)
        mean = self.gather(input.float().mean((2, 3))).mean(0)
        centred = input.float() - mean[:, None, None]
        rows = self.gather(centred.square().mean((2, 3)))
        variance = rows.mean(0)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            count = len(rows) * input[0, 0].numel()
            self.running_mean.lerp_(mean, self.momentum or 0.1)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum or 0.1)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input)


class PatchDiscriminator(nn.Module):
    """4x4 convolutions with norms and leaky ReLU of slope 0.2; weights start as N(0, 0.02)."""

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.Conv2d(3, config.channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        current = config.channels
        for index in range(1, config.layers + 1):
            width = config.channels * min(2**index, 8)
            stride = 2 if index < config.layers else 1
            bias = config.norm != "batch"
            layers += [
                nn.Conv2d(current, width, 4, stride=stride, padding=1, bias=bias),
                SharedBatchNorm(width) if config.norm == "batch" else nn.GroupNorm(config.groups, width),
                nn.LeakyReLU(0.2),
            ]
            current = width
        layers.append(nn.Conv2d(current, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    @property
    def smallest(self) -> int:
        """Side in pixels of the smallest picture that gets a score."""
        return 3 * 2**self.config.layers

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 i j"]:
        """Pictures in [-1, 1] -> scores of patches, higher for real ones. Raises ValueError for pictures that are too small."""
        if min(pictures.shape[-2:]) < self.smallest:
            raise ValueError(
                f"a discriminator of {self.config.layers} layers reads pictures of at least {self.smallest} pixels a side, "
                f"got {pictures.shape[-1]}x{pictures.shape[-2]}: set discriminator.layers lower"
            )
        return self.layers(pictures)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Context in which a module's parameters count as constants: gradients pass through it to its input alone."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


# Geometric GAN (arXiv 1705.02894), equation 12.
def hinge(real: Float[Tensor, "b 1 i j"], drawn: Float[Tensor, "b 1 i j"]) -> Float[Tensor, ""]:
    """The discriminator's loss: half the mean shortfall of real scores from 1 and excess of drawn ones over -1."""
    return 0.5 * (torch.relu(1 - real).mean() + torch.relu(1 + drawn).mean())


# VQGAN (arXiv 2012.09841), equation 7; delta and the limit are those of its code.
def adaptive_weight(
    reconstruction: Float[Tensor, ""],
    adversarial: Float[Tensor, ""],
    last: Tensor,
    total: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> Float[Tensor, ""]:
    """Ratio of the lengths of two losses' gradients at the last layer: makes the second pull as hard as the first.

    Both graphs are kept. The result is a constant in [0, 10^4]. total: the sum of gradients over all processes.
    """
    (one,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (other,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    one, other = total(torch.stack([one, other]))
    return (one.norm() / (other.norm() + 1e-4)).clamp(0.0, 1e4).detach()
