"""Interface between stages and the loop: a `Task` (network and losses) and its `Batches` (data)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from unclip.checkpoints.io import save_model
from unclip.networks.patch_transformer import ModulatedBlock
from unclip.nn.transformer import Block
from unclip.rng import Noise, derive
from unclip.train.batches import Batches
from unclip.train.config import TrainConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.registry import stage_module

Result = TypeVar("Result")
Network = TypeVar("Network", bound=nn.Module)


class Losses(NamedTuple):
    """The mean loss of some samples, and further numbers to write down."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]]


class Group(NamedTuple):
    """Parameters that one optimiser config trains and whose gradients are clipped together."""

    parameters: list[tuple[str, nn.Parameter]]
    optimizer: OptimizerConfig


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

    def groups(self, config: TrainConfig) -> list[Group]:
        """The trained parameters with their optimiser config: one group of all, unless a task has adversaries."""
        named = [(name, one) for name, one in self.named_parameters() if one.requires_grad]
        return [Group(named, config.optimizer)]

    def save(self, folder: Path, *, stage: str, name: str, batches: Any) -> Path:
        """Write the finished network as a model folder; the loop has put the average in its place. The folder."""
        return save_model(
            folder, {stage: self.network}, name=name, tokenizer=batches.tokenizer_json, space=batches.space
        )


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
    """`network` for training steps, compiled where the config wants it: on a GPU block by block, if it has blocks.

    Validation and previews call the network itself: it would be compiled again for their shapes.
    """
    wanted = device.type == "cuda" if config.compile is None else config.compile
    if not wanted:
        return network
    if by_block(config, device) and _blocks(network):
        return ByBlock(network)
    return torch.compile(network)


def by_block(config: TrainConfig, device: torch.device) -> bool:
    """Whether blocks are compiled one by one: on a GPU, where the config does not forbid it."""
    return device.type == "cuda" and config.compile is not False


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
