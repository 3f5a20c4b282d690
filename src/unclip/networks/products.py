"""The layers that a network spends its time in, from its config alone, for a measurement of their speed."""

from typing import Any

from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.unet import UnetConfig
from unclip.nn.precision import Product

WIDEST = 640
"""Wider layers are measured with so many channels: they are as fast per operation, and take longer to measure."""
LARGEST = 32
"""Larger maps are measured as maps of this side."""
LEAST = 20_000_000
"""A layer with fewer operations waits for other things than products, and is not counted."""


def products(config: Any) -> tuple[Product, ...]:
    """The layers to measure for a network: none for kinds whose time is not in products, and for tiny networks.

    `config` is a part's, such as a `DecoderConfig`. A U-Net has 3x3 convolutions at its finest and its coarsest level
    and, where it attends, attention and linear layers; a transformer on patches has the latter two.
    """
    net = getattr(config, "net", None)
    if isinstance(net, UnetConfig):
        found = _of_unet(net, _side(config))
    elif isinstance(net, PatchTransformerConfig):
        tokens = (net.size // net.patch) ** 2
        found = [_linear(net.width, tokens), Product("attention", net.width, min(tokens, LARGEST**2))]
    else:
        found = []
    return tuple(dict.fromkeys(product for product in found if product.operations >= LEAST))


def _side(config: Any) -> int:
    """Side of the maps that a part's network reads."""
    if (high := getattr(config, "high_size", None)) is not None:
        return high
    side = config.size // getattr(config, "factor", 1)
    # Kandinsky's and Stable Diffusion's configs count pixels; their latents are an eighth of that.
    return side // 8 if side > 128 else side


def _of_unet(net: UnetConfig, side: int) -> list[Product]:
    last = len(net.multiples) - 1
    found = []
    for level in sorted({0, last}):
        size = max(1, side // net.patch // 2**level)
        found.append(
            Product("convolution", min(WIDEST, net.channels * net.multiples[level]), min(LARGEST, size))
        )
    if net.attention_levels:
        level = min(net.attention_levels)
        size, width = max(1, side // net.patch // 2**level), min(WIDEST, net.channels * net.multiples[level])
        tokens = min(LARGEST**2, size**2)
        found += [Product("attention", width, tokens), _linear(width, tokens)]
    return found


def _linear(width: int, tokens: int) -> Product:
    return Product("linear", min(WIDEST, width), min(tokens, LARGEST**2))
