"""Weights of public folders, read from safetensors files only; `unclip convert` reads pickled ones."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from unclip.checkpoints.foreign import not_weights
from unclip.checkpoints.stream import Stream
from unclip.errors import ModelError

Readers = dict[str, Callable[[], Tensor]]
"""A function that reads each weight, by prefix and key."""


@contextlib.contextmanager
def open_weights(files: Mapping[str, Sequence[Path]]) -> Iterator[Readers]:
    """Context with the readers of some safetensors files' weights; keys get the prefix of their files.

    Raises `ModelError` for a damaged or pickled file, and for a weight that two files hold.
    """
    readers: Readers = {}
    homes: dict[str, Path] = {}
    for prefix, file in ((prefix, file) for prefix, several in files.items() for file in several):
        if found := not_weights(file):
            raise ModelError(f"{file} {found}")
        if file.suffix != ".safetensors":
            raise ModelError(f"{file} is pickled, which can hide programs: `unclip convert` reads it safely")
        try:
            stored = Stream(file)
        except FileNotFoundError:
            raise ModelError(f"{file} is missing: get the model again") from None
        except SafetensorError as error:
            raise ModelError(f"{file} is damaged ({error}): get the model again") from error
        for key in stored.names:
            if prefix + key in homes:
                raise ModelError(f"{file} holds the weight {key}, and so does {homes[prefix + key]}")
            homes[prefix + key] = file
            readers[prefix + key] = lambda stored=stored, key=key: stored.get_tensor(key)
    yield readers
