"""Where and how the parts of a model compute: device, number type, and the layout of weights."""

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from unclip.errors import RequestError
from unclip.formats.open_part import OpenPart
from unclip.generate.number_type import Packing
from unclip.generate.offload import without_weights
from unclip.generate.openvino_nets import Openvino
from unclip.networks.clip import ClipConfig
from unclip.networks.inference import prepack, settle, suits_channels_last, widen, winograd_bytes
from unclip.networks.products import products
from unclip.networks.unet import UnetConfig
from unclip.nn.precision import Product

SAMPLED = ("prior", "decoder", "upsampler")
"""Roles of the parts that are called at every step, whose layers are packed."""
SHARE = 0.25
"""Share of the machine's memory that weights of convolutions with fewer products may take."""
LARGE_CLIP = 2 << 30
"""Bytes of float32 weights from which CLIP computes in the model's dtype, as other parts do. Smaller ones use float32,
in which they are quick enough and exact."""


def best_device() -> torch.device:
    """A CUDA device if there is one, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_backend(backend: Openvino, dtype: torch.dtype | str | None, offload: bool) -> None:
    """Raise `RequestError` for options that a backend has no use for."""
    name = str(dtype or "auto").removeprefix("torch.")
    if name not in ("auto", "float32"):
        raise RequestError(
            f"dtype {name} is torch's: with the backend openvino, give backend_precision {backend.precision} or another"
        )
    if offload:
        raise RequestError(
            "offload is torch's: the backend openvino keeps its nets in memory; leave one of them out"
        )


def decisive_layers(configs: Iterable[Any]) -> tuple[Product, ...]:
    """The layers that decide a model's number type: those of its decoder and upsamplers."""
    return tuple(dict.fromkeys(product for config in configs for product in products(config)))


def physical_memory() -> int:
    """Bytes of memory that the machine has, 0 where the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def affords_winograd(parts: Iterable[OpenPart]) -> bool:
    """Whether the weights that fewer products need take at most `SHARE` of the machine's memory."""
    bytes = sum(winograd_bytes(without_weights(part.load)) for part in parts if part.role in SAMPLED)
    return 0 < bytes <= SHARE * physical_memory()


def compute_dtype(part: OpenPart, dtype: torch.dtype) -> torch.dtype:
    """Type that a part computes in: `dtype` where it is safe, else float32."""
    if part.role in ("clip", "text"):
        weights = without_weights(part.load).parameters() if dtype != torch.float32 else ()
        return dtype if 4 * sum(weight.numel() for weight in weights) > LARGE_CLIP else torch.float32
    return dtype if computes_in(part.config, dtype) else torch.float32


def computes_in(config: Any, dtype: torch.dtype) -> bool:
    """Whether a part may compute in a half type: not CLIP, and not most networks that predict eps.

    An eps rounded to bfloat16 is off by more than the picture at the cosine schedule's largest sigma. U-Nets compute
    their last layer in float32 in any case.
    """
    eps = getattr(getattr(config, "process", None), "parametrization", None) == "eps"
    unet = isinstance(getattr(config, "net", None), UnetConfig)
    text = isinstance(config, ClipConfig) or getattr(config, "kind", "") == "text_encoder"
    return dtype == torch.float32 or not (text or (eps and not unet))


def prepare(network: nn.Module, *, packed: Packing = False, widened: bool = False) -> nn.Module:
    """The network in evaluation mode, with weights in the layout of its device's kernels, or widened at every call."""
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    if widened:
        widen(network)
    elif device.type == "cpu":
        prepack(network, float32=packed)
    elif device.type == "cuda":
        settle(network)
    if suits_channels_last(network, device):
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network.eval()
