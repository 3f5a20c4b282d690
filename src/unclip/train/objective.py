"""What a stage must offer to be trained by the loop."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn

from unclip.checkpoints.manifest import Space
from unclip.rng import Noise
from unclip.train.config import TrainConfig
from unclip.train.source import Source

Result = TypeVar("Result")


class Losses(NamedTuple):
    """The mean loss of some samples, and further numbers to write down."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]]


@runtime_checkable
class Objective(Protocol):
    """A stage: its network, its data, its loss. One small class each, in `train/objectives/`."""

    @property
    def model(self) -> nn.Module:
        """The network that is trained."""
        ...

    @property
    def train(self) -> Source:
        """What it learns from."""
        ...

    @property
    def tokenizer_json(self) -> str | None:
        """The tokenizer that belongs to the network, if it reads captions."""
        ...

    @property
    def space(self) -> Space | None:
        """The embedding space of the CLIP that the network learns from; a CLIP has its own."""
        ...

    def loss(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> Losses:
        """The loss of the samples with these consecutive numbers (positions in the run); `noise` has a stream for each."""
        ...

    def validate(self) -> dict[str, float]:
        """Losses on held-out data at fixed noise levels with fixed noise."""
        ...

    def preview(self) -> Image.Image | None:
        """A picture of what the network does by now, if that can be shown."""
        ...


def compiled(
    config: TrainConfig, device: torch.device, network: Callable[..., Result]
) -> Callable[..., Result]:
    """`network` for training steps, compiled where the config wants it.

    Validation and previews call the network itself: it would be compiled again for their shapes.
    """
    wanted = device.type == "cuda" if config.compile is None else config.compile
    return torch.compile(network) if wanted else network
