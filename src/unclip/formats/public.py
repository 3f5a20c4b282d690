"""A model in a public format: configs of this package's networks, key tables, and the files that hold the weights."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from unclip.checkpoints.foreign import not_weights
from unclip.checkpoints.io import assign, build
from unclip.checkpoints.keymap import Table
from unclip.checkpoints.registry import classes
from unclip.errors import ModelError
from unclip.formats.digest import stable_repr
from unclip.formats.folder import sample_of
from unclip.formats.weights import open_weights
from unclip.stages.sampling import Sampling
from unclip.tokenizers.reading import CaptionTokenizer

Tokenizer = TypeVar("Tokenizer")


@dataclass(frozen=True, kw_only=True)
class PublicPart:
    """A network of this package in files of a public format."""

    kind: str
    config: Any
    table: Table
    files: Mapping[str, tuple[Path, ...]]
    """For each prefix of keys, the files that hold them."""

    def load(
        self, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, only: str = ""
    ) -> nn.Module:
        """The network in evaluation mode, as `io.load_part` returns it.

        Raises `ModelError` for weights that are unknown, missing, damaged or of another shape, and for pickled files.
        """
        network = build(classes(self.kind)[1], self.config)
        with open_weights(self.files) as weights:
            made = self.table.to_ours(
                network.state_dict(), list(weights), lambda key: weights[key](), self.where, only
            )
            assign(network, made, device=device, dtype=dtype, only=only)
        return network.eval()

    @property
    def where(self) -> str:
        """The folders or files, for messages."""
        files = [
            f"{several[0]} and {len(several) - 1} more" if several[1:] else str(several[0])
            for several in self.files.values()
        ]
        return ", ".join(dict.fromkeys(files))


@dataclass(frozen=True, kw_only=True)
class PublicModel:
    """A model in a public format."""

    format: str
    folder: Path
    licence: str
    parts: Mapping[str, PublicPart]
    tokenizer: Callable[[], CaptionTokenizer] | None
    """None for a prior alone, and for a decoder without CLIP."""
    tokenizers: Mapping[str, Callable[[], CaptionTokenizer]] = field(default_factory=dict)
    """Tokenizers of parts that have one of their own."""
    defaults: Sampling = Sampling()
    """Settings that the format's own pipeline samples with; the rest is None."""
    space: str = ""
    """Name of the embedding space, where the format names it."""

    @property
    def name(self) -> str:
        """Name of the folder, or of the repository in the hub's cache."""
        found = re.search(r"models--([^/\\]+)[/\\]snapshots", str(self.folder))
        return found[1].replace("--", "/") if found else self.folder.name

    @property
    def files(self) -> list[Path]:
        """Every file that holds weights."""
        found = {file for part in self.parts.values() for several in part.files.values() for file in several}
        return sorted(found)

    @property
    def pickled(self) -> list[Path]:
        """Files that only `unclip convert` reads."""
        return [file for file in self.files if file.suffix != ".safetensors"]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the configs and the files: their sizes, headers and 64 KiB samples.

        Reading all of 14 GB to identify a model would take longer than generating with it.
        """
        configs = [f"({name!r}, {stable_repr(part.config)})" for name, part in sorted(self.parts.items())]
        digest = hashlib.sha256(f"[{', '.join(configs)}]".encode())
        for file in self.files:
            digest.update(sample_of(file))
        return digest.hexdigest()[:12]

    def with_files(self, files: Mapping[Path, Path]) -> "PublicModel":
        """Copy with some files replaced, such as pickled ones by their safetensors."""
        parts = {
            name: replace(
                part,
                files={
                    prefix: tuple(files.get(file, file) for file in several)
                    for prefix, several in part.files.items()
                },
            )
            for name, part in self.parts.items()
        }
        return replace(self, parts=parts)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Means to read a format: a safe reader of pickled files and a tokenizer from elsewhere, which `unclip convert` has."""

    unpickle: Callable[[Sequence[Path]], Mapping[Path, Path]] | None = None
    """Writes pickled files as safetensors and returns the new path of each."""
    tokenizer: CaptionTokenizer | None = None
    prediction: Literal["eps", "v"] | None = None
    """What the network predicts, for files that do not say so."""
    averaged: bool = True
    """Whether averaged weights are taken, of files that hold both."""

    def safe(self, files: Sequence[Path]) -> list[Path]:
        """The files as safetensors. Raises `ModelError` for pickled ones that may not be read here."""
        pickled = [file for file in files if file.suffix != ".safetensors"]
        if pickled and self.unpickle is None:
            raise pickle_refused(pickled[0], pickled[0].parent)
        made = self.unpickle(pickled) if pickled and self.unpickle is not None else {}
        return [made.get(file, file) for file in files]

    def required_tokenizer(self, kind: type[Tokenizer]) -> Tokenizer:
        """The given tokenizer, for formats without one. Raises `ModelError` if there is none, or one of another kind."""
        if self.tokenizer is None:
            raise ModelError(
                "these weights come without a tokenizer: give a folder that holds it, or, for CLIP's, OpenAI's "
                "bpe_simple_vocab_16e6.txt.gz"
            )
        if not isinstance(self.tokenizer, kind):
            raise ModelError(
                f"the tokenizer is a {type(self.tokenizer).__name__}, expected a {kind.__name__}"
            )
        return self.tokenizer


FOLDER = Reader()
"""Reads what a folder itself holds: no pickled files, no other tokenizer."""


def pickle_refused(file: Path, source: Path) -> ModelError:
    """Error for a pickled file, with the remedy; for a file that is none, with what it is."""
    if found := not_weights(file):
        return ModelError(f"{file} {found}")
    return ModelError(
        f"{file} is pickled, which can hide programs: `unclip convert {source} OUT` reads it safely"
    )
