"""What a stage must offer to be trained by the loop."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn

from unclip.rng import Noise


class Losses(NamedTuple):
    """The mean loss of some samples, and further numbers to write down."""

    loss: Float[Tensor, ""]
    metrics: dict[str, float]


@runtime_checkable
class Objective(Protocol):
    """A stage: its network, its data, its loss. One small class each, in `train/objectives/`."""

    model: nn.Module

    def loss(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> Losses:
        """The loss of the samples with these numbers (positions in the run); `noise` has a stream for each."""
        ...

    def validate(self) -> dict[str, float]:
        """Losses on held-out data at fixed noise levels with fixed noise."""
        ...

    def preview(self) -> Image.Image | None:
        """A picture of what the network does by now, if that can be shown."""
        ...
