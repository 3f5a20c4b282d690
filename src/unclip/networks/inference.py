"""Networks made ready to be used and not trained: weights of half the size, in the layout of the device's kernels."""

from collections.abc import Container, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unclip.networks.unet import Unet
from unclip.nn.fused import FusedResBlock
from unclip.nn.map_blocks import MapDecoder, MapEncoder
from unclip.nn.packed import PackedConv2d, PackedLinear, PackedResBlock, can_pack, packed_convolution
from unclip.nn.resblock import ResBlock
from unclip.nn.winograd import Widths, suits


def matrices(network: nn.Module) -> frozenset[str]:
    """The names of the weights that may be kept in bfloat16 under autocast: of all layers that multiply.

    The first and last convolutions of U-Nets and autoencoders stay float32: they are small, and what they compute is not averaged out.
    """
    kept, kinds = _kept(network), (nn.Linear, nn.Conv2d, nn.Embedding)
    return frozenset(
        f"{name}.weight" if name else "weight"
        for name, module in network.named_modules()
        if isinstance(module, kinds) and module not in kept
    )


def prepack(network: nn.Module, *, float32: bool | Widths = False) -> None:
    """Put packed layers in the place of those whose weights are bfloat16, one at a time.

    With `float32`, layers of that type are packed as well; the answers differ by rounding. Given widths, 3x3 convolutions take
    fewer products where those say so. Nothing changes where torch or the processor cannot do it. The network cannot be trained nor saved any more.
    """
    if can_pack():
        _prepack_within(network, torch.bfloat16, frozenset())
    if float32 and can_pack(torch.float32):
        widths = float32 if isinstance(float32, Widths) else None
        _prepack_within(network, torch.float32, _kept(network), widths)


def widen(network: nn.Module) -> None:
    """Let layers whose weights are bfloat16 compute in float32: weights are widened at every call, and stay as they are.

    Half the memory, at float32's precision of everything but the weights. The network cannot be saved any more.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding) and module.weight.dtype == torch.bfloat16:
            # What reads `weight` anywhere gets float32, which torch's check of a parametrization's type would forbid.
            parametrize.register_parametrization(module, "weight", _Widened(), unsafe=True)


class _Widened(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.float()


def is_packed(network: nn.Module) -> bool:
    """Whether `prepack` changed a network."""
    return any(
        isinstance(module, PackedConv2d | PackedLinear | PackedResBlock) for module in network.modules()
    )


def settle(network: nn.Module) -> None:
    """Prepare a network that computes in a half type for a GPU: fewer casts, launches and passes over maps.

    U-Nets hold all weights in that type but the last convolution's, and then do without autocast; other layers hold their
    biases in the type of their weights. Nothing changes in networks with float32 weights. The network cannot be trained
    nor saved any more.
    """
    for module in list(network.modules()):
        if isinstance(module, Unet):
            _settle_unet(module)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            _cast(module, "bias", module.weight.dtype)


def suits_channels_last(network: nn.Module, device: torch.device) -> bool:
    """Whether to keep a network's maps with the channels innermost: U-Nets and autoencoders, not on CUDA with group norms.

    Convolutions are quicker so. CUDA's group norm lays its input and output out the other way, and every norm and every
    convolution would rearrange the map (docs/speed.md, "On a GPU").
    """
    nets = [module for module in network.modules() if isinstance(module, Unet)]
    maps = any(isinstance(module, MapEncoder | MapDecoder) for module in network.modules())
    if device.type == "cuda":
        return bool(nets) and not maps and all(net.config.norm == "rms" for net in nets)
    return bool(nets) or maps


def _settle_unet(unet: Unet) -> None:
    dtype = unet.middle.resblock1.conv1.weight.dtype
    if dtype == torch.float32:
        return
    for module in unet.modules():
        if module is not unet.exit:
            for name, _ in list(module.named_parameters(recurse=False)):
                _cast(module, name, dtype)
    _replace_blocks(unet)


def _replace_blocks(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, ResBlock):
            setattr(module, name, FusedResBlock(child))
        else:
            _replace_blocks(child)


def _cast(module: nn.Module, name: str, dtype: torch.dtype) -> None:
    weight = module.get_parameter(name)
    if weight.dtype != dtype:
        setattr(module, name, nn.Parameter(weight.detach().to(dtype), requires_grad=weight.requires_grad))


_WITH_ENDS = (Unet, MapEncoder, MapDecoder)


def _kept(network: nn.Module) -> frozenset[nn.Module]:
    return frozenset(
        layer for module in network.modules() if isinstance(module, _WITH_ENDS) for layer in _ends(module)
    )


def _ends(network: Unet | MapEncoder | MapDecoder) -> Iterator[nn.Module]:
    yield network.entrance
    yield network.exit


def winograd_bytes(network: nn.Module) -> int:
    """Bytes that the weights of all 3x3 convolutions take for fewer products, beside the network's own."""
    convolutions = (module for module in network.modules() if suits(module))
    return sum(4 * 4 * weight.numel() for layer in convolutions for weight in layer.parameters())


def _prepack_within(
    module: nn.Module, dtype: torch.dtype, kept: Container[nn.Module], widths: Widths | None = None
) -> None:
    for name, child in list(module.named_children()):
        packed = None
        if isinstance(child, ResBlock) and child.conv1.weight.dtype == dtype:
            packed = PackedResBlock(child, dtype, widths)
        elif type(child) is nn.Conv2d and child.weight.dtype == dtype and child not in kept:
            packed = packed_convolution(child, dtype, widths)
        elif type(child) is nn.Linear and child.weight.dtype == dtype:
            packed = PackedLinear(child, dtype)
        if packed is None:
            _prepack_within(child, dtype, kept, widths)
        else:
            setattr(module, name, packed)
        del child
