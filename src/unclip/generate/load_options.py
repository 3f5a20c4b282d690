"""Options of loading a model, checked before anything is read: device, tile, adapters with their strengths."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unclip.config import read_value, shown
from unclip.errors import RequestError


def given_device(device: torch.device | str | Any) -> torch.device:
    """The device of a name. Raises `RequestError` for what is none, and for one that is not there."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise RequestError(f"device {shown(device)} is none: give cpu, cuda, cuda:N or mps") from None
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (found.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not here.get(found.type, True):
        raise RequestError(
            f"there is no device {found} here: give cpu, or leave it out for the best that there is"
        )
    return found


def given_tile(tile: int | Any) -> int | None:
    """The side in pixels of what an autoencoder decodes at once; None for all of it. Raises `RequestError` for another type."""
    side: int | None = read_value(int | None, tile, "tile", error=RequestError)
    if side is not None and side < 1:
        raise RequestError(f"tile is {side}: give the side in pixels of what is decoded at once, such as 512")
    return side


def given_strengths(adapters: Mapping[Any, float] | Any) -> dict[str, float]:
    """Path of each adapter -> its strength. Raises `RequestError` for a strength that is no finite number."""
    if not isinstance(adapters, Mapping | None):
        raise RequestError(
            f"adapters is {shown(adapters)}: give the strength of each by its path, such as {{path: 0.8}}"
        )
    found: dict[str, float] = {}
    for path, strength in (adapters or {}).items():
        if not isinstance(path, str | os.PathLike):
            raise RequestError(f"adapters: {shown(path)} is no path of a file or folder")
        where = f"the strength of the adapter {os.fspath(path)}"
        found[os.fspath(path)] = read_value(float, strength, where, error=RequestError)
        if not math.isfinite(found[os.fspath(path)]):
            raise RequestError(f"{where} is {strength}: give a finite number")
    return found


def named(strengths: Mapping[str, float]) -> dict[str, float]:
    """Name of each adapter -> its strength; where two files have one name, as diffusers' have, with their folders."""
    names = [Path(path).name for path in strengths]
    return {
        str(Path(*Path(path).parts[-2:])) if names.count(name) > 1 else name: strength
        for name, (path, strength) in zip(names, strengths.items())
    }
