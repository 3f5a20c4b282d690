"""What a stage must offer to be trained by the loop."""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn

from unclip.checkpoints.manifest import Space
from unclip.models.patch_transformer import ModulatedBlock
from unclip.nn.transformer import Block
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
    """`network` for training steps, compiled where the config wants it: on a GPU block by block, if it has blocks.

    Validation and previews call the network itself: it would be compiled again for their shapes.
    """
    wanted = device.type == "cuda" if config.compile is None else config.compile
    if not wanted:
        return network
    if device.type == "cuda" and _blocks(network):
        return ByBlock(network)
    return torch.compile(network)


def by_block(
    config: TrainConfig, device: torch.device, network: Callable[..., Result]
) -> Callable[..., Result]:
    """`network` with its blocks compiled on a GPU, where the config does not forbid it; as it is on a CPU."""
    return compiled(config, device, network) if device.type == "cuda" and _blocks(network) else network


class ByBlock(Generic[Result]):
    """A network, or a method of one, whose transformer blocks run compiled within the call.

    All blocks of one shape share one compilation, so that a stage begins within seconds.
    """

    def __init__(self, network: Callable[..., Result]):
        self.network, self.blocks = network, _blocks(network)
        # Stages follow each other in one process, and each brings shapes of its own.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        kinds = {type(block) for block in self.blocks}
        self.forwards = {kind: torch.compile(kind.forward, dynamic=False) for kind in kinds}

    def __call__(self, *arguments: Any, **named: Any) -> Result:
        """The network's answer."""
        for block in self.blocks:
            block.forward = partial(self.forwards[type(block)], block)
        try:
            return self.network(*arguments, **named)
        finally:
            for block in self.blocks:
                del block.forward


def _blocks(network: Callable[..., Any]) -> list[nn.Module]:
    """The transformer blocks of a network, or of the one whose method it is."""
    owner = network if isinstance(network, nn.Module) else getattr(network, "__self__", None)
    if not isinstance(owner, nn.Module):
        return []
    return [module for module in owner.modules() if isinstance(module, Block | ModulatedBlock)]
