"""Adapter files in peft's layout: adapter_config.json and adapter_model.safetensors, and what they change in a network."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unclip.errors import ModelError
from unclip.networks.adapter import Adapter, product
from unclip.stages.space import APART, fingerprint_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
OWN = "unclip"
"""Key of the weights' metadata: the part as JSON, its kind, and the fingerprint of the weight of one layer."""

#: Options of peft's LoRA that change what an adapter computes -> the values that are read.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "use_dora": (False,),
    "use_rslora": (False, True),
    "fan_in_fan_out": (False,),
    "rank_pattern": ({}, None),
    "layers_pattern": (None, "", []),
    "layers_to_transform": (None,),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None,),
    "layer_replication": (None,),
    "lora_bias": (False,),
    "use_qalora": (False,),
    "target_parameters": (None, []),
}


class Factors(NamedTuple):
    """A low-rank change: scale x up x down."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def change(self) -> Tensor:
        """What it adds to a weight, float32."""
        return self.scale * product(self.down, self.up)


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """An adapter that was read: the changes by the name of a layer, and what it was made for."""

    path: Path
    digest: str
    """Twelve hexadecimal digits of its weights and config."""
    layers: Mapping[str, Factors]
    """Names are those of this package's networks, or of another (`formats.adapters`)."""
    part: str | None = None
    """Name of the part that it changes, where the file has it."""
    model: str = ""
    """Name of the model that it was trained on, where the file has it."""
    fingerprint: tuple[float, ...] = ()
    """`fingerprint_of` the weight of `layer`; empty if unknown."""
    layer: str = ""

    @property
    def name(self) -> str:
        """Name of the folder, or of the file without its suffix."""
        return self.path.name if self.path.is_dir() else self.path.stem


def save_adapter(
    folder: Path, adapter: Adapter, network: nn.Module, *, part: str, model: str, kind: str
) -> Path:
    """Write an adapter as peft's folder; the path of it. `network` is the one that it was trained on, in its place."""
    config = adapter.config
    tensors, first = {}, adapter.names[0]
    for name, (down, up) in adapter.factors().items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = down.cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = up.cpu().contiguous()
    fingerprint = fingerprint_of(network.get_submodule(first).get_parameter("weight").flatten(1))
    written = {
        "peft_type": "LORA",
        "base_model_name_or_path": model,
        "r": config.rank,
        "lora_alpha": config.rank if config.alpha is None else config.alpha,
        "target_modules": adapter.names,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "task_type": None,
    }
    own = {"part": part, "kind": kind, "fingerprint": list(fingerprint), "layer": first}
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS
    weights.touch()
    # One key only: safetensors writes several in random order.
    save_file(tensors, weights, metadata={OWN: json.dumps(own)})
    with weights.open("rb+") as file:
        os.fsync(file.fileno())
    # Last, as it marks the folder as complete.
    fresh = folder / f".{CONFIG}"
    fresh.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    fresh.replace(folder / CONFIG)
    return folder


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of an adapter: peft's folder, or a safetensors file. Raises `ModelError` for what is neither."""
    file = path
    if path.is_dir():
        found = [path / name for name in (WEIGHTS, "pytorch_lora_weights.safetensors")]
        file = next((one for one in found if one.is_file()), found[0])
    if not file.is_file():
        raise ModelError(f"{path} holds no adapter: give a folder with {WEIGHTS}, or a .safetensors file")
    if file.suffix != ".safetensors":
        raise ModelError(f"{file} is no safetensors file: adapters in pickled files are not read")
    try:
        with safe_open(file, "pt") as stored:
            names = stored.keys()
            return {name: stored.get_tensor(name) for name in names}, stored.metadata() or {}
    except SafetensorError as error:
        raise ModelError(f"{file} is damaged ({error}): get the adapter again") from error


def read_config(path: Path) -> dict[str, Any]:
    """peft's config beside an adapter's weights, or {} where there is none.

    Raises `ModelError` for an option that changes what an adapter computes and is not supported.
    """
    file = (path if path.is_dir() else path.parent) / CONFIG
    if not file.is_file() or (not path.is_dir() and path.name != WEIGHTS):
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is damaged ({error}): get the adapter again") from error
    if found.get("peft_type", "LORA") != "LORA":
        raise ModelError(f"{file}: peft_type is {found['peft_type']!r}; adapters of the type LORA are read")
    for name, values in _PLAIN.items():
        if name in found and found[name] not in values:
            raise ModelError(
                f"{file}: {name} is {found[name]!r}, which is not supported; merge that adapter with peft"
            )
    return found


def read_adapter(path: str | os.PathLike[str]) -> AdapterFile:
    """An adapter in peft's layout, by the names of the network that it was made for.

    Raises `ModelError` for a damaged one, a layer without both factors, and a config that is not supported.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    config = read_config(path)
    own = json.loads(metadata.get(OWN, "{}"))
    if not config and "lora_adapter_metadata" in metadata:
        # diffusers keeps peft's config in the file, its keys after the part's name.
        kept = json.loads(metadata["lora_adapter_metadata"])
        config = {name.partition(".")[2]: value for name, value in kept.items()}
    alpha, rslora = config.get("lora_alpha"), bool(config.get("use_rslora"))
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    layers: dict[str, Factors] = {}
    halves: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise ModelError(f"{path} holds {name!r}, which is no factor of a low-rank adapter")
        halves.setdefault(match["layer"].removeprefix(PREFIX), {})[_HALVES[match["half"]]] = value.float()
    for layer, parts in halves.items():
        if not {"down", "up"} <= parts.keys():
            raise ModelError(f"{path} lacks one of the two factors of the layer {layer!r}")
        rank = parts["down"].shape[0]
        chosen = next((value for key, value in patterns.items() if _fits(layer, key)), alpha)
        if (stored := parts.get("alpha")) is not None:
            chosen = float(stored)
        scale = 1.0 if chosen is None else chosen / (rank**0.5 if rslora else rank)
        layers[layer] = Factors(parts["down"], parts["up"], scale)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(
            name.encode() + tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return AdapterFile(
        path=path,
        digest=digest.hexdigest()[:12],
        layers=layers,
        part=own.get("part"),
        model=config.get("base_model_name_or_path") or "",
        fingerprint=tuple(own.get("fingerprint", ())),
        layer=own.get("layer", ""),
    )


_NAME = re.compile(
    r"(?P<layer>.+?)\.(?P<half>lora_A(?:\.default)?\.weight|lora_B(?:\.default)?\.weight|lora_down\.weight|lora_up\.weight|alpha)"
)
_HALVES = {
    **dict.fromkeys(("lora_A.weight", "lora_A.default.weight", "lora_down.weight"), "down"),
    **dict.fromkeys(("lora_B.weight", "lora_B.default.weight", "lora_up.weight"), "up"),
    "alpha": "alpha",
}


def _fits(layer: str, key: str) -> bool:
    return layer == key or re.fullmatch(rf"(.*\.)?({key})", layer) is not None


def check_base(adapter: AdapterFile, network: nn.Module, changes: Mapping[str, Tensor], where: str) -> None:
    """Raise `ModelError` where changes, by the names of weights, do not fit a network, or it is not what they were made for."""
    weights = dict(network.named_parameters())
    for name, change in changes.items():
        if name not in weights:
            raise ModelError(
                f"the adapter {adapter.path} changes {name!r}, which the {where} does not have: it was made for another model"
            )
        if weights[name].shape != change.shape:
            raise ModelError(
                f"the adapter {adapter.path} changes {name!r} by a matrix of {tuple(change.shape)}, in the {where} it has "
                f"{tuple(weights[name].shape)}: it was made for another model"
            )
    if adapter.fingerprint:
        found = fingerprint_of(weights[f"{adapter.layer}.weight"].float().flatten(1))
        squares = [(a - b) ** 2 for a, b in zip(found, adapter.fingerprint, strict=True)]
        if (sum(squares) / len(squares)) ** 0.5 > APART:
            raise ModelError(
                f"the adapter {adapter.path} was trained on {adapter.model or 'another model'}, whose weights are not those "
                f"of the {where}: load that model"
            )


@torch.no_grad()
def add(network: nn.Module, changes: Mapping[str, Tensor], strength: float) -> None:
    """Add `strength` times the changes to a network's weights, each in the weight's own type."""
    weights = dict(network.named_parameters())
    for name, change in changes.items():
        weight = weights[name]
        weight.copy_((weight.float() + strength * change.to(weight.device)).to(weight.dtype))
