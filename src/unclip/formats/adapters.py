"""Adapters by the names of public formats: peft's and diffusers' layouts and Kohya's, as changes of this package's weights.

A key table says how each weight here is made of theirs. All of its forms are linear, so that the change of a weight is made
of the changes of theirs.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unclip.checkpoints.adapters import AdapterFile, Factors, check_base
from unclip.checkpoints.keymap import Table
from unclip.errors import ModelError

TABLES: dict[str, tuple[str, str]] = {
    "decoder_kandinsky": ("unclip.formats.key_maps.kandinsky", "table"),
    "text_decoder": ("unclip.formats.key_maps.latent_unet", "decoder_table"),
}
"""Kind of a network -> module and function that gives the table of a config; keys are "component/name"."""

COMPONENTS: dict[str, tuple[str, ...]] = {
    "decoder": ("unet", "decoder"),
    "prior": ("prior",),
    "text_encoder": ("text_encoder", "te"),
    "clip": ("text_encoder", "te"),
}
"""Part -> what the names of its layers begin with in files of other programs."""


def table_of(config: Any) -> Table | None:
    """The key table of a network's config in its public format; None for a network without one."""
    if config.kind not in TABLES:
        return None
    module, name = TABLES[config.kind]
    make: Callable[[Any], Table] = getattr(importlib.import_module(module), name)
    return make(config)


def part_of(adapter: AdapterFile, parts: Mapping[str, Any]) -> str:
    """Name of the part that an adapter changes. Raises `ModelError` where it is none, or not the only one."""
    if adapter.part is not None:
        if adapter.part not in parts:
            raise ModelError(
                f"the adapter {adapter.path} changes the part {adapter.part!r}, which this model does not have: it has "
                f"{', '.join(parts)}"
            )
        return adapter.part
    found = {name for layer in adapter.layers if (name := _component(layer)) is not None}
    named = [part for part, components in COMPONENTS.items() if part in parts and found & set(components)]
    if found and not named:
        raise ModelError(
            f"the adapter {adapter.path} changes {', '.join(sorted(found))}, which this model does not have: it has "
            f"{', '.join(parts)}"
        )
    if len(found) > 1:
        raise ModelError(
            f"the adapter {adapter.path} changes {' and '.join(sorted(found))}; adapters of one part are read: split it"
        )
    # peft's own files do not tell: they are taken for the decoder's.
    return named[0] if named else "decoder"


def changes_of(adapter: AdapterFile, network: nn.Module, part: str) -> dict[str, Tensor]:
    """What an adapter of strength 1 adds to a network's weights, by our names.

    Raises `ModelError` for an adapter that was made for another network.
    """
    where = f"part {part!r}"
    weights = dict(network.named_parameters())
    if all(f"{layer}.weight" in weights for layer in adapter.layers):
        found = {f"{layer}.weight": one.change for layer, one in adapter.layers.items()}
    else:
        found = _public_changes(adapter, network, part)
    check_base(adapter, network, found, where)
    return found


def _public_changes(adapter: AdapterFile, network: nn.Module, part: str) -> dict[str, Tensor]:
    table = table_of(network.config)
    if table is None:
        layer = next(iter(adapter.layers))
        raise ModelError(
            f"the adapter {adapter.path} changes {layer!r}, which the part {part!r} does not have: it was made for another model"
        )
    shapes = {name: torch.empty(weight.shape, device="meta") for name, weight in network.named_parameters()}
    components = COMPONENTS.get(part, (part,))
    given = {_plain(layer, components): one for layer, one in adapter.layers.items()}
    plan = table.plan(shapes)
    # Names as tables have them, without the component, and as Kohya's files do.
    known = {
        alias: key
        for one in plan.values()
        for key in one.theirs
        if key.endswith(".weight")
        for alias in _aliases(key)
    }
    unknown = [layer for layer in given if layer not in known]
    if unknown:
        raise ModelError(
            f"the adapter {adapter.path} changes {unknown[0]!r} ({len(unknown)} of {len(given)} layers are unknown): it was "
            f"made for another model than this {part}"
        )
    changes = {known[layer]: one for layer, one in given.items()}
    found: dict[str, Tensor] = {}
    for name, one in plan.items():
        if not any(key in changes for key in one.theirs):
            continue
        parts = []
        for key, like in zip(one.theirs, one.form.split(shapes[name]), strict=True):
            parts.append(_shaped(adapter, key, changes.get(key), like))
        found[name] = one.form.join(parts)
    return found


def _shaped(adapter: AdapterFile, key: str, one: Factors | None, like: Tensor) -> Tensor:
    if one is None:
        return torch.zeros(like.shape)
    change = one.change
    # A 1x1 convolution is a matrix in some programs.
    if change.numel() == like.numel() and change.flatten(1).shape[0] == like.shape[0]:
        return change.reshape(like.shape)
    raise ModelError(
        f"the adapter {adapter.path} changes {key!r} by a matrix of {tuple(change.shape)}, in this model it has "
        f"{tuple(like.shape)}: it was made for another model"
    )


def public_factors(
    factors: Mapping[str, tuple[Tensor, Tensor]], network: nn.Module
) -> dict[str, tuple[Tensor, Tensor]] | None:
    """A (rank, in) and B (out, rank) by the public names of layers; None for a network without a public format.

    A matrix that the format keeps in pieces gets one A and a piece of B for each. Raises `ValueError` for a layer whose
    layout there has other columns.
    """
    table = table_of(network.config)
    if table is None:
        return None
    found = {}
    for layer, (down, up) in factors.items():
        one = table.find(f"{layer}.weight")
        pieces = one.form.split(up)
        likes = one.form.split(torch.empty(up.shape[0], *down.shape[1:], device="meta"))
        for key, piece, like in zip(one.theirs, pieces, likes, strict=True):
            rank = down.shape[0]
            if piece.flatten(1).shape != (like.shape[0], rank):
                raise ValueError(f"the layer {layer!r} has another layout in its public format")
            ones = (1,) * (like.ndim - 2)
            found[key.partition("/")[2].removesuffix(".weight")] = (
                down.reshape(rank, *like.shape[1:]),
                piece.reshape(like.shape[0], rank, *ones),
            )
    return found


def write_public(
    folder: Path, factors: Mapping[str, tuple[Tensor, Tensor]], network: nn.Module, *, part: str, scale: float
) -> Path | None:
    """Write diffusers' `pytorch_lora_weights.safetensors` into a folder; its path, or None without a public format."""
    from safetensors.torch import save_file

    found = public_factors(factors, network)
    if found is None:
        return None
    component = COMPONENTS.get(part, (part,))[0]
    tensors = {}
    for name, (down, up) in found.items():
        # Pieces of one matrix share A, which a file holds for each.
        tensors[f"{component}.{name}.lora_A.weight"] = down.cpu().contiguous().clone()
        # diffusers scales by 1 where a file has no alpha, so that the scale is in B.
        tensors[f"{component}.{name}.lora_B.weight"] = (scale * up).cpu().contiguous()
    file = folder / "pytorch_lora_weights.safetensors"
    file.touch()
    save_file(tensors, file, metadata={"format": "pt"})
    return file


def _component(layer: str) -> str | None:
    match = re.match(r"(?:lora_)?(unet|text_encoder|te|prior|decoder)[._/]", layer)
    return match[1] if match else None


def _plain(layer: str, components: tuple[str, ...]) -> str:
    """A layer's name without its component."""
    for component in components:
        for prefix in (f"{component}.", f"lora_{component}_"):
            if layer.startswith(prefix):
                return layer.removeprefix(prefix)
    return layer


def _aliases(key: str) -> tuple[str, str]:
    name = key.partition("/")[2].removesuffix(".weight")
    return name, name.replace(".", "_")
