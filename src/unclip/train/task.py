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
from torch.utils.checkpoint import checkpoint

from unclip.checkpoints.adapters import save_adapter
from unclip.checkpoints.io import save_model
from unclip.formats.adapters import write_public
from unclip.networks.adapter import Adapter, AdapterConfig
from unclip.networks.patch_transformer import ModulatedBlock
from unclip.nn.attention import PixelAttention
from unclip.nn.map_blocks import MapResBlock
from unclip.nn.resblock import ResBlock
from unclip.nn.transformer import Block
from unclip.rng import Noise, derive
from unclip.train.batches import Batches
from unclip.train.config import TrainConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.registry import stage_module
from unclip.train.world import Division

TRANSFORMER_BLOCKS = (Block, ModulatedBlock)
BLOCKS = (*TRANSFORMER_BLOCKS, ResBlock, MapResBlock, PixelAttention)
"""Modules that are sharded one by one, and whose activations may be computed again; networks call them as modules."""

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

    division: Division = Division()
    """How the micro-batch of the next `forward` is divided among processes; a loss that is no mean over samples reads it."""

    kept_whole: tuple[str, ...] = ()
    """Names of parameters that every process holds whole, also where the others are in shards."""

    @abstractmethod
    def forward(self, batch: Any, noise: Noise) -> Losses:
        """The losses of a batch; `noise` has a stream for each sample, the one that its data was made with."""

    @abstractmethod
    def validate(self, batches: Any) -> dict[str, float]:
        """Losses on held-out data at fixed noise levels with fixed noise."""

    def preview(self, batches: Any) -> Image.Image | None:
        """A picture of what the network does so far; None for a network that draws none."""
        return None

    def follow(self, config: TrainConfig) -> None:
        """Take over the length of the run from its config, for losses that change on the way."""

    def groups(self, config: TrainConfig) -> list[Group]:
        """The trained parameters with their optimiser config: one group of all, unless a task has adversaries."""
        named = [(name, one) for name, one in self.named_parameters() if one.requires_grad]
        return [Group(named, config.optimizer)]

    def adapt(self, config: AdapterConfig, base: str) -> None:
        """Train an adapter in place of the network's weights; `base` is the model that they are from."""
        self.adapter = Adapter(self.network, config)
        self.adapter.attach(self.network)
        self._base = Path(base).name

    def save(self, folder: Path, *, part: str, name: str, batches: Any) -> Path:
        """Write the finished network as a model folder, or its adapter; the loop has put the average in its place.

        Returns the folder.
        """
        adapter = getattr(self, "adapter", None)
        if isinstance(adapter, Adapter):
            network: Any = self.network
            save_adapter(folder, adapter, network, part=part, model=self._base, kind=network.config.kind)
            write_public(folder, adapter.factors(), network, part=part, scale=adapter.config.scale)
            return folder
        return save_model(
            folder,
            {part: self.network},
            name=name,
            tokenizer=batches.tokenizer_json,
            space=batches.space,
            latents=batches.latent_form,
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
    """`network` for training steps, compiled where the config wants it: block by block, if `by_block` and it has blocks.

    Validation and previews call the network itself: it would be compiled again for their shapes.
    """
    wanted = device.type == "cuda" if config.compile is None else config.compile
    if not wanted:
        return network
    if by_block(config, device) and _blocks(network, kinds := _kinds(config)):
        return ByBlock(network, kinds)
    return torch.compile(network)


def by_block(config: TrainConfig, device: torch.device) -> bool:
    """Whether blocks are compiled one by one: on a GPU, or in shards, where the config does not forbid it."""
    if config.compile and config.parallel.layout == "fsdp":
        return True
    return device.type == "cuda" and config.compile is not False


def _kinds(config: TrainConfig) -> tuple[type[nn.Module], ...]:
    # A block in shards is compiled alone, between the exchange of its weights and that of its gradients.
    return BLOCKS if config.parallel.layout == "fsdp" else TRANSFORMER_BLOCKS


class ByBlock(Generic[Result]):
    """A network, or a method of one, whose blocks (transformer blocks, if not said) run compiled within the call.

    All blocks of one shape share one compilation, so that a stage begins within seconds.
    """

    def __init__(
        self, network: Callable[..., Result], kinds: tuple[type[nn.Module], ...] = TRANSFORMER_BLOCKS
    ):
        self.network, self.blocks = network, _blocks(network, kinds)
        # Stages follow each other in one process, and each brings shapes of its own.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        shared = {type(block) for block in self.blocks}
        self.forwards = {kind: torch.compile(kind.forward, dynamic=False) for kind in shared}

    def __call__(self, *arguments: Any, **named: Any) -> Result:
        """The network's answer."""
        plain = [vars(block).get("forward") for block in self.blocks]
        for block, own in zip(self.blocks, plain):
            # Shards give a block a class of their own, derived from its class.
            kind = next(kind for kind in type(block).__mro__ if kind in self.forwards)
            inner = partial(self.forwards[kind], block)
            block.forward = inner if own is None else Checkpointed(inner)
        try:
            return self.network(*arguments, **named)
        finally:
            for block, own in zip(self.blocks, plain):
                del block.forward
                if own is not None:
                    block.forward = own


class Checkpointed:
    """A block's forward pass that keeps its inputs only; the backward pass computes the rest again."""

    def __init__(self, forward: Callable[..., Any]):
        self.forward = forward

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The block's answer."""
        if not torch.is_grad_enabled():
            return self.forward(*arguments, **named)
        return checkpoint(self.forward, *arguments, use_reentrant=False, **named)


def checkpoint_blocks(module: nn.Module) -> None:
    """Let every block in `module` keep its inputs only (Chen et al. 2016, arXiv 1604.06174)."""
    for block in module.modules():
        if isinstance(block, BLOCKS):
            block.forward = Checkpointed(block.forward)


def _blocks(network: Callable[..., Any], kinds: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    """The blocks of a network, or of the one whose method it is."""
    owner = network if isinstance(network, nn.Module) else getattr(network, "__self__", None)
    if not isinstance(owner, nn.Module):
        return []
    return [module for module in owner.modules() if isinstance(module, kinds)]
