"""Stages: a network, its noise process, and how it is sampled.

Submodules load on first use (PEP 562), so that requests and the command line can name them without importing torch.
"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"{__name__}.{name}":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        raise
