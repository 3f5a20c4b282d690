"""Low-rank adapters (LoRA, Hu et al. 2021): W + (alpha / rank) B A beside frozen weights, trained and kept apart from them."""

import math
import re
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Rank and scale of an adapter, and which layers it changes."""

    rank: int = 8
    alpha: float | None = None
    """The change is multiplied by alpha / rank; None: by 1."""
    targets: str | None = None
    """Regular expression that a layer's whole name must match; linear layers and convolutions can be adapted. None: the
    projections of attention, which are the layers of modules whose class is called an attention."""

    def __post_init__(self) -> None:
        """Raise ValueError for a rank below 1, a scale that is not positive, and an expression that cannot be read."""
        if self.rank < 1:
            raise ValueError(f"adapter.rank is {self.rank}; it must be at least 1")
        if self.alpha is not None and self.alpha <= 0:
            raise ValueError(f"adapter.alpha is {self.alpha}; it must be positive")
        try:
            re.compile(self.targets or "")
        except re.error as error:
            raise ValueError(f"adapter.targets {self.targets!r} is no regular expression: {error}") from None

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class Low(nn.Module):
    """A (`down`) and B (`up`) of one layer; B starts at zero, so that a new adapter changes nothing."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, *layer.weight.shape[1:]))
        ones = (1,) * (layer.weight.ndim - 2)
        self.up = nn.Parameter(torch.zeros(layer.weight.shape[0], rank, *ones))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def change(self, layer: nn.Module, x: Tensor) -> Tensor:
        """B A x, with the layer's stride and padding."""
        if isinstance(layer, nn.Conv2d):
            hidden = F.conv2d(x, self.down, None, layer.stride, layer.padding, layer.dilation)
            return F.conv2d(hidden, self.up)
        return F.linear(F.linear(x, self.down), self.up)


class Adapter(nn.Module):
    """The low-rank changes of a network's layers, added to what the layers give while the adapter is attached.

    Raises ValueError where no layer has a name that matches.
    """

    def __init__(self, network: nn.Module, config: AdapterConfig):
        super().__init__()
        self.config = config
        self.names = [
            name
            for name, module in network.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d) and _is_target(network, name, config.targets)
        ]
        if not self.names:
            layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
            raise ValueError(
                f"adapter.targets {config.targets!r} matches no layer of this network: its layers are called "
                f"{', '.join(layers[:4])}, ..."
            )
        self.layers = nn.ModuleList()
        for name in self.names:
            layer = network.get_submodule(name)
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            self.layers.append(Low(layer, config.rank).to(layer.weight.device))

    def attach(self, network: nn.Module) -> None:
        """Add the changes to the outputs of the network's layers from now on, and freeze its own weights."""
        network.requires_grad_(False)
        for name, low in zip(self.names, self.layers, strict=True):
            assert isinstance(low, Low)
            network.get_submodule(name).register_forward_hook(_Add(low, self.config.scale))

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer name -> A and B."""
        return {
            name: (low.down.detach(), low.up.detach())
            for name, low in zip(self.names, self.layers, strict=True)
            if isinstance(low, Low)
        }


def _is_target(network: nn.Module, name: str, targets: str | None) -> bool:
    if targets is not None:
        return re.fullmatch(targets, name) is not None
    return type(network.get_submodule(name.rpartition(".")[0])).__name__.endswith("Attention")


class _Add:
    """A forward hook that adds a scaled change."""

    def __init__(self, low: Low, scale: float):
        self.low, self.scale = low, scale

    def __call__(self, layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return out + self.scale * self.low.change(layer, given[0]).to(out)


def product(down: Float[Tensor, "rank ..."], up: Float[Tensor, "width ..."]) -> Float[Tensor, "width ..."]:
    """B A as a weight: of a linear layer, or of a convolution."""
    return (up.flatten(1).float() @ down.flatten(1).float()).reshape(up.shape[0], *down.shape[1:])
