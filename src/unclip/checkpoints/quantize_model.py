"""Quantise a model folder, and measure the error."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unclip.checkpoints.io import read_weights, write_weights
from unclip.checkpoints.manifest import Manifest, entry_of, read_manifest, write_folder
from unclip.checkpoints.quantize import Storage


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """Size of a part before and after in bytes, and relative error |W' - W| / |W| over all its weights."""

    bytes_before: int
    bytes_after: int
    relative_error: float


def quantize_model(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    storage: Storage | Mapping[str, Storage] = "int8",
    force: bool = False,
) -> dict[str, QuantizationReport]:
    """Write the model folder `source` as `target` with another storage, for all parts or for each by name.

    Returns a report per part. Raises `FileExistsError` unless `force`.
    """
    source = Path(source)
    manifest = read_manifest(source)
    chosen: dict[str, Storage] = dict.fromkeys(manifest.parts, "float32")
    chosen |= dict.fromkeys(manifest.parts, storage) if isinstance(storage, str) else storage
    reports: dict[str, QuantizationReport] = {}

    def fill(fresh: Path) -> Manifest:
        parts = {}
        for name, part in manifest.parts.items():
            weights = dict(read_weights(source / part.file))
            write_weights(fresh / part.file, weights, chosen[name])
            parts[name] = replace(part, storage=chosen[name], **entry_of(fresh / part.file))
            reports[name] = QuantizationReport(
                bytes_before=part.size,
                bytes_after=parts[name].size,
                relative_error=relative_error(weights, read_weights(fresh / part.file)),
            )
        for entry in (*filter(None, [manifest.tokenizer]), *manifest.tokenizers.values()):
            shutil.copyfile(source / entry.file, fresh / entry.file)
        return replace(manifest, parts=parts)

    write_folder(Path(target), fill, force=force)
    return reports


def relative_error(weights: Mapping[str, Tensor], stored: Iterator[tuple[str, Tensor]]) -> float:
    """Relative error |W' - W| / |W| in the Euclidean norm over all floating-point weights."""
    difference = total = torch.zeros((), dtype=torch.float64)
    for name, value in stored:
        if value.is_floating_point():
            weight = weights[name].double()
            difference = difference + (value.double() - weight).square().sum()
            total = total + weight.square().sum()
    return float((difference / total.clamp(min=1e-300)).sqrt())
