"""Quantisation of stored weights: int8 with one scale per output channel for matrices, float16 for the rest.

A matrix or convolution W becomes round(W / s) with s = max|W| / 127 over each index of axis 0, and a companion
tensor `name.scale` holds s. Only storage is quantised: networks compute with dequantised weights.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int8
from torch import Tensor

Storage = Literal["float32", "float16", "int8"]
STORAGES: tuple[Storage, ...] = get_args(Storage)
SCALE = ".scale"
# Smaller tensors (norms, biases, first and last layers) save little and are kept exact.
MIN_SIZE = 4096


def quantize(weight: Float[Tensor, "out ..."]) -> tuple[Int8[Tensor, "out ..."], Float[Tensor, " out"]]:
    """Rounded weights round(W / s) and scales s = max|W| / 127 per index of axis 0; the error is at most s / 2."""
    flat = weight.float().flatten(1)
    scale = flat.abs().amax(1) / 127.0
    steps = torch.where(scale > 0, scale, 1.0)[:, None]
    return (flat / steps).round().to(torch.int8).reshape(weight.shape), scale


def dequantize(
    values: Int8[Tensor, "out ..."], scale: Float[Tensor, " out"], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "out ..."]:
    """values * s in `dtype`."""
    return (values.float() * scale.float().reshape(-1, *(1,) * (values.ndim - 1))).to(dtype)


def encode(weights: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Tensors to store; integer tensors are unchanged. Raises `ValueError` for a non-finite weight."""
    encoded: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if not weight.is_floating_point():
            encoded[name] = weight
            continue
        if not weight.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity, which cannot be stored")
        if storage == "int8" and weight.ndim >= 2 and weight.numel() >= MIN_SIZE:
            encoded[name], encoded[name + SCALE] = quantize(weight)
        elif storage != "float32" and weight.abs().max() < torch.finfo(torch.float16).max:
            encoded[name] = weight.to(torch.float16)
        else:
            encoded[name] = weight.float()
    return encoded


def stored_size(weights: Mapping[str, Tensor], storage: Storage) -> int:
    """About the bytes of a safetensors file with these weights."""
    size = 4096
    for weight in weights.values():
        if not weight.is_floating_point():
            size += weight.nbytes
        elif storage == "int8" and weight.ndim >= 2 and weight.numel() >= MIN_SIZE:
            size += weight.numel() + 4 * len(weight) + 128
        else:
            size += weight.numel() * (4 if storage == "float32" else 2)
        size += 128
    return size


def plain_names(names: Iterable[str]) -> set[str]:
    """Names of the weights without those of their scales."""
    names = set(names)
    return {name for name in names if not (name.endswith(SCALE) and name.removesuffix(SCALE) in names)}


def decode(
    names: Iterable[str], read: Callable[[str], Tensor], dtype: torch.dtype = torch.float32
) -> Iterator[tuple[str, Tensor]]:
    """Name and weight of each tensor in `dtype`, one at a time, so that only one is in memory twice; inverts `encode`."""
    names = set(names)
    for name in sorted(plain_names(names)):
        value = read(name)
        if name + SCALE in names:
            yield name, dequantize(value, read(name + SCALE), dtype)
        else:
            yield name, value.to(dtype) if value.is_floating_point() else value
