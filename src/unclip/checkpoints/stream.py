"""Read weights from safetensors files one at a time, without a second copy in memory.

safetensors maps whole files and returns views: every page that was read then counts as memory of the process as long as
one weight is held.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

WINDOW = 1 << 27
"""Bytes to read before the file is mapped again."""


class Stream:
    """A safetensors file. Raises `SafetensorError` or `FileNotFoundError`, as safetensors does."""

    def __init__(self, file: Path):
        self.file = file
        self._read = 0
        self._open: Any = safe_open(file, framework="pt")
        self.names: list[str] = list(self._open.keys())

    def get_tensor(self, name: str) -> Tensor:
        """A weight, copied out of the mapped file."""
        if self._read > WINDOW:
            self._open = None
            self._open, self._read = safe_open(self.file, framework="pt"), 0
        stored = self._open.get_tensor(name)
        self._read += stored.nbytes
        return torch.empty_like(stored).copy_(stored)
