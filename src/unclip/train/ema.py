"""Exponential moving average (EMA) of the weights, in float32: validated, previewed and exported."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unclip.train.world import local


class Ema:
    """`average <- decay * average + (1 - decay) * weights` after every step.

    Early on the decay is (1 + n) / (10 + n) after n steps, so that the random start is soon forgotten (the rule of
    TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.average = copy_of(model.state_dict())

    @torch.no_grad()
    def update(self, model: nn.Module, steps: int) -> None:
        """Update the average with the weights after step number `steps` (from 1)."""
        weight = 1.0 - min(self.decay, (1 + steps) / (10 + steps))
        state = model.state_dict()
        floating = [name for name, value in self.average.items() if value.is_floating_point()]
        # Each process averages the part that it holds.
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            [local(self.average[name]) for name in floating],
            [local(state[name]) for name in floating],
            weight,
        )
        for name in self.average.keys() - set(floating):
            self.average[name].copy_(state[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Context in which the model holds the average; afterwards its own weights again, bit for bit."""
        with holding(model, self.average):
            yield

    def state_dict(self) -> dict[str, Tensor]:
        """The average, by parameter name."""
        return self.average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load an average that `state_dict` returned."""
        for name, value in self.average.items():
            value.copy_(state[name])


@contextmanager
def holding(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Context in which the model holds `weights` in evaluation mode; afterwards its own again, bit for bit."""
    own = copy_of(model.state_dict())
    model.load_state_dict(weights)
    model.eval()
    try:
        yield
    finally:
        model.load_state_dict(own)
        model.train()


def copy_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the weights, detached."""
    return {name: value.detach().clone() for name, value in weights.items()}
