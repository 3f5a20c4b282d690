"""Networks made ready to be used and not trained: weights of half the size, in the layout of the CPU's kernels."""

from collections.abc import Iterator

import torch
from torch import nn

from unclip.networks.unet import Unet
from unclip.nn.packed import PackedConv2d, PackedLinear, PackedResBlock, can_pack
from unclip.nn.resblock import ResBlock


def matrices(network: nn.Module) -> frozenset[str]:
    """The names of the weights that may be kept in bfloat16 under autocast: of all layers that multiply.

    The first and last convolutions of U-Nets stay float32: they are small, and what they compute is not averaged out.
    """
    kept = {layer for module in network.modules() if isinstance(module, Unet) for layer in _ends(module)}
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding)
    return frozenset(
        f"{name}.weight" if name else "weight"
        for name, module in network.named_modules()
        if isinstance(module, kinds) and module not in kept
    )


def prepack(network: nn.Module) -> None:
    """Put packed layers in the place of those whose weights are bfloat16, one at a time.

    Nothing changes where torch or the processor cannot do it. The network cannot be trained nor saved any more.
    """
    if can_pack():
        _prepack_within(network)


def _ends(unet: Unet) -> Iterator[nn.Module]:
    yield unet.entrance
    yield unet.exit


def _prepack_within(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        packed = None
        if isinstance(child, ResBlock) and child.conv1.weight.dtype == torch.bfloat16:
            packed = PackedResBlock(child)
        elif type(child) is nn.Conv2d and child.weight.dtype == torch.bfloat16:
            packed = PackedConv2d(child)
        elif type(child) is nn.Linear and child.weight.dtype == torch.bfloat16:
            packed = PackedLinear(child)
        if packed is None:
            _prepack_within(child)
        else:
            setattr(module, name, packed)
        del child
