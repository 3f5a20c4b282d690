"""The model that `--model`, `--part`, `--device` and `--dtype` ask for."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from unclip.cli.console import UsageError

if TYPE_CHECKING:
    import torch

    from unclip.generate.model import Model
    from unclip.generate.number_type import Packing


def load(
    model: str,
    device: str | None,
    dtype: str | None,
    *,
    offload: bool = False,
    tile: int | None = None,
    parts: Mapping[str, str] | None = None,
    adapters: Mapping[str, float] | None = None,
    backend: str | None = None,
    backend_precision: str | None = None,
    packed: "Packing | None" = None,
) -> "Model":
    """Model on the given or the best device. Raises `UsageError` for a device that does not exist here."""
    from unclip.generate.model import Model

    return Model.load(
        model,
        device=None if device is None else read_device(device),
        dtype=dtype,
        offload=offload,
        tile=tile,
        parts=parts or {},
        adapters=adapters or {},
        backend=backend,
        backend_precision=backend_precision,
        packed=packed,
    )


def load_for(arguments: argparse.Namespace) -> "Model":
    """Model of a verb's options."""
    return load(
        arguments.model,
        arguments.device,
        arguments.dtype,
        offload=getattr(arguments, "offload", False),
        tile=getattr(arguments, "tile", None),
        parts=dict(arguments.part),
        adapters=dict(arguments.adapter),
        backend=getattr(arguments, "backend", None),
        backend_precision=getattr(arguments, "backend_precision", None),
    )


def read_device(name: str) -> "torch.device":
    """Device of a name. Raises `UsageError` for one that does not exist here."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"--device {name}: there is no such kind of device; give cpu, cuda, cuda:1 or mps"
        ) from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(
        device.type, 0
    )
    if (device.index or 0) >= count:
        raise UsageError(
            f"--device {name}: this machine has no such device that torch can use; --device cpu always works"
        )
    return device
