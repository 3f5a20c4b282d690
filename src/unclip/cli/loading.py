"""The system that `--model`, `--device` and `--dtype` ask for."""

from typing import TYPE_CHECKING

from unclip.cli.console import UsageError

if TYPE_CHECKING:
    import torch

    from unclip.generate.system import System


def load(model: str, device: str | None, dtype: str | None, *, offload: bool = False) -> "System":
    """Load `model` with the given or the best device. Raises `UsageError` for a device that is not there."""
    from unclip.generate.system import System

    return System.load(
        model,
        device=None if device is None else read_device(device),
        dtype=dtype or "float32",
        offload=offload,
    )


def read_device(name: str) -> "torch.device":
    """The device that `name` means. Raises `UsageError` where there is no such device here."""
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
