"""Interface between stages and the loop: a `Task` (network and losses) and its `Batches` (data)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from unclip.rng import Noise, derive
from unclip.train.batches import Batches
from unclip.train.config import TrainConfig
from unclip.train.registry import stage_module

Result = TypeVar("Result")
Network = TypeVar("Network", bound=nn.Module)


class Losses(NamedTuple):
    """The mean loss of some samples, and further numbers to write down."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]]


class Task(nn.Module, ABC, Generic[Network]):
    """A network in training and its losses: one small class for each stage, in `train/tasks/`.

    Every trained weight belongs to the module and is reached through `forward`, so that wrappers of modules (DDP, FSDP)
    see all of them. Frozen encoders are not registered: they are no part of its state.
    """

    network: Network
    """What becomes the model."""

    @abstractmethod
    def forward(self, batch: Any, noise: Noise) -> Losses:
        """The losses of a batch; `noise` has a stream for each sample, the one that its data was made with."""

    @abstractmethod
    def validate(self, batches: Any) -> dict[str, float]:
        """Losses on held-out data at fixed noise levels with fixed noise."""

    def preview(self, batches: Any) -> Image.Image | None:
        """A picture of what the network does so far; None for a network that draws none."""
        return None


class Built(NamedTuple):
    """A stage that is ready to be trained."""

    task: Task[Any]
    batches: Batches[Any]


def build_task(config: TrainConfig, device: torch.device) -> Built:
    """The task and the data of `config.stage`, with a fresh network, initialised by the seed, on `device`."""
    torch.manual_seed(derive(config.seed, config.stage, "weights"))
    return stage_module(config.stage).build(config, device)


def compiled(
    config: TrainConfig, device: torch.device, network: Callable[..., Result]
) -> Callable[..., Result]:
    """`network` for training steps, compiled where the config wants it.

    Validation and previews call the network itself: it would be compiled again for their shapes.
    """
    wanted = device.type == "cuda" if config.compile is None else config.compile
    return torch.compile(network) if wanted else network
