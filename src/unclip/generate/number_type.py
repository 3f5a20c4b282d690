"""The number type that a model computes in: chosen by a measurement of its layers, which the cache remembers."""

import functools
import logging
import platform
from collections.abc import Sequence
from typing import Any

import torch

from unclip.cache import read_cached, write_cached
from unclip.errors import RequestError
from unclip.nn.precision import WORTHWHILE, Product, Speeds, by_capability, packed_speeds, winograd_widths
from unclip.nn.winograd import Widths

logger = logging.getLogger(__name__)

SEVERAL = 3.0
"""A number type that makes the layers so many times as slow is warned about."""
EVEN = 0.95
"""Packed float32 layers may be so many times as fast as torch's, to be taken."""
FILE = "speed.json"
"""File of the cache with what was measured; its form is `FORMAT`."""
FORMAT = 3
Packing = bool | Widths
"""Whether float32 layers are oneDNN's, laid out once; given widths, with fewer products in 3x3 convolutions (`unclip.nn.winograd`)."""
WIDENED = "bfloat16-weights"
"""Weights in bfloat16, and all else in float32."""
NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16, WIDENED: torch.float32}

_warned: set[str] = set()


def number_type(
    dtype: torch.dtype | str,
    device: torch.device,
    products: Sequence[Product],
    *,
    warn: bool = True,
    winograd: bool = False,
) -> torch.dtype:
    """The number type of a name. "auto" is the faster one for a model whose layers are `products`, by measurement.

    On a CPU it is bfloat16 where that makes the layers `WORTHWHILE` times as fast as the faster float32 ones, and float32 for tiny models, which
    have no layer to measure. On CUDA it is bfloat16 where the hardware has it. With `warn`, a given type that is
    `SEVERAL` times as slow as the other one is warned about, once per process. `winograd` says that there is memory for
    convolutions with fewer products. Raises `RequestError` for a type that
    pictures do not survive.
    """
    name = str(dtype).removeprefix("torch.")
    if name == "auto":
        return fastest(device, products, winograd=winograd)
    if name not in NAMES:
        raise RequestError(f"dtype {dtype} is not one of auto, {', '.join(NAMES)}")
    if warn and products and device.type == "cpu" and name not in _warned:
        ratio = measured(products).bfloat16
        slower, other = (1 / ratio, "float32") if name == "bfloat16" else (ratio, "bfloat16")
        if slower >= SEVERAL:
            _warned.add(name)
            logger.warning(
                "dtype %s is %.1f times as slow as %s on this processor, by a measurement of this model's layers; "
                'dtype="auto" takes the faster one',
                name,
                slower,
                other,
            )
    return NAMES[name]


def fastest(device: torch.device, products: Sequence[Product], *, winograd: bool = False) -> torch.dtype:
    """The faster type for layers on a device, logged."""
    if device.type != "cpu":
        return torch.bfloat16 if by_capability(str(device)) == "bf16" else torch.float32
    if not products:
        return torch.float32
    speeds = measured(products, winograd=winograd)
    chosen = "bfloat16" if speeds.bfloat16 > WORTHWHILE * max(1.0, speeds.float32) else "float32"
    logger.info(
        "dtype auto: %s (as fast as torch's float32 layers: bfloat16 %.1f times, packed float32 %.1f times)",
        chosen,
        *speeds,
    )
    return NAMES[chosen]


def packing(products: Sequence[Product], *, winograd: bool = False) -> Packing:
    """How to pack float32 layers: not where torch's own are faster, and with fewer products where `winograd` allows them.

    Where both take as long, packing pays by what is not measured, the fewer passes of `PackedResBlock`.
    """
    if not products or measured(products, winograd=winograd).float32 <= EVEN:
        return False
    widths = measured_widths() if winograd else Widths(0, 0, 0)
    return widths if any(widths) else True


def measured_widths() -> Widths:
    """The widths from which fewer products are faster on this machine, from the cache or by measurement."""
    machine = this_machine()
    known = _read(machine).get("winograd")
    if not (
        isinstance(known, list) and len(known) == 3 and all(type(one) is int and one >= 0 for one in known)
    ):
        known = list(winograd_widths())
        logger.info(
            "3x3 convolutions take fewer products from these channels on (maps of 16, 32, 64): %s", known
        )
        _write(machine, winograd=known)
    return Widths(*known)


def measured(products: Sequence[Product], *, winograd: bool = False) -> Speeds:
    """How fast layers are on this machine beside torch's own in float32, from the cache or by measurement.

    With `winograd`, convolutions take fewer products where those are faster.

    The cache is for one processor model, version of torch and number of threads; one of another machine, or one that
    cannot be read, is written over.
    """
    machine, key = this_machine(), repr([tuple(product) for product in products])
    widths = measured_widths() if winograd else None
    if widths is not None and any(widths):
        key += f" {list(widths)}"
    speeds = _read(machine).get("speeds")
    known = (
        {str(key): Speeds(*pair) for key, pair in speeds.items() if _sane(pair)}
        if isinstance(speeds, dict)
        else {}
    )
    if key not in known:
        known = known | {key: packed_speeds(products, widths)}
        _write(machine, speeds=known)
    return known[key]


def _read(machine: dict[str, Any]) -> dict[str, Any]:
    """What the cache holds for this machine."""
    found = read_cached(FILE)
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("machine") != machine:
        return {}
    return found


def _write(machine: dict[str, Any], **found: Any) -> None:
    write_cached(FILE, {"format": FORMAT, "machine": machine, **_read(machine), **found})


def _sane(pair: Any) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == len(Speeds._fields)
        and all(isinstance(one, float) and 0 < one < float("inf") for one in pair)
    )


def this_machine() -> dict[str, Any]:
    """What a measurement holds for: the processor, the version of torch, and the threads."""
    return {"processor": processor(), "torch": torch.__version__, "threads": torch.get_num_threads()}


@functools.cache
def processor() -> str:
    """The processor's model, with the number formats that it multiplies."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            name = next(
                (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""
            )
    except OSError:
        name = ""
    capabilities = torch.cpu.get_capabilities()
    formats = sorted(str(key) for key, value in capabilities.items() if value is True)
    return " ".join([name or platform.processor() or platform.machine(), *formats])
