"""Adapter files in peft's layout: adapter_config.json and adapter_model.safetensors, and what they change in a network."""

import hashlib
import json
import math
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

from unclip.config import shown
from unclip.errors import ModelError
from unclip.networks.adapter import Adapter, product
from unclip.stages.fingerprint import are_apart
from unclip.stages.space import COEFFICIENTS, fingerprint_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
OWN = "unclip"
"""Key of the weights' metadata: the part as JSON, its kind, and the fingerprint of the weight of one layer."""
MOST_ALPHA = 1e6
"""The largest alpha of a config."""

_OFF = (None, False, "", [], {})
"""Values of an option that is not in use."""

#: Options of peft's LoraConfig that change what an adapter computes -> the values that are read. A test compares the names of
#: this table and the next with the installed class's.
OPTIONS: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "use_dora": _OFF,
    "use_rslora": (*_OFF, True),
    "fan_in_fan_out": _OFF,
    "modules_to_save": _OFF,
    "trainable_token_indices": _OFF,
    "layer_replication": _OFF,
    "lora_bias": _OFF,
    "use_qalora": _OFF,
    "target_parameters": _OFF,
    "alora_invocation_tokens": _OFF,
    "arrow_config": _OFF,
    "kasa_config": _OFF,
    "velora_config": _OFF,
    "monteclora_config": _OFF,
    "use_bdlora": _OFF,
    # Others change the model's own weights when the adapter is made, and peft changes them again when it is loaded.
    "init_lora_weights": (*_OFF, True, "gaussian", "orthogonal", "eva"),
}
READ = frozenset({"peft_type", "lora_alpha", "alpha_pattern", "base_model_name_or_path"})
"""Options that are honoured, beside those of `OPTIONS`."""
INERT = frozenset(
    {"r", "rank_pattern", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
    | {"task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout"}
    | {"megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config"}
    | {"qalora_group_size", "runtime_config", "ensure_weight_tying"}
)
"""Options that the factors' names and shapes repeat, and those of training and of what `OPTIONS` excludes."""


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
    return _checked(_object(file.read_text(encoding="utf-8", errors="replace"), str(file)), str(file))


def _object(text: str, where: str) -> dict[str, Any]:
    """A JSON object in a text. Raises `ModelError` for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is damaged ({error}): get the adapter again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{where} is damaged: it does not hold an object; get the adapter again")
    return found


def _checked(found: dict[str, Any], where: str) -> dict[str, Any]:
    """peft's config. Raises `ModelError` naming the first option that changes what an adapter computes and is not read."""
    kind = found.get("peft_type", "LORA")
    if kind != "LORA":
        raise ModelError(f"{where}: peft_type is {shown(kind)}; adapters of the type LORA are read")
    for name, value in found.items():
        if name in READ or name in INERT:
            continue
        if value not in OPTIONS.get(name, _OFF):
            known = "" if name in OPTIONS else ", an option that is not known to this version of unclip"
            raise ModelError(
                f"{where}: {name} is {shown(value)}{known}, which is not supported: merge that adapter with peft"
            )
    for name, value in {"lora_alpha": found.get("lora_alpha"), **_patterns(found, where)}.items():
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (plain and abs(value) <= MOST_ALPHA):
            raise ModelError(f"{where}: {name} is {shown(value)}, expected a number")
    return found


def _patterns(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """alpha_pattern: regular expressions of layers -> their alpha."""
    found = config.get("alpha_pattern") or {}
    if not isinstance(found, dict):
        raise ModelError(f"{where}: alpha_pattern is {shown(found)}, expected an object")
    for key in found:
        try:
            re.compile(key)
        except re.error as error:
            raise ModelError(
                f"{where}: alpha_pattern has {shown(key)}, no regular expression: {error}"
            ) from error
    return found


def read_adapter(path: str | os.PathLike[str]) -> AdapterFile:
    """An adapter in peft's layout, by the names of the network that it was made for.

    Raises `ModelError` for a damaged one, a layer without both factors, numbers that are not finite, and a config that is not
    supported.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    config = read_config(path)
    own = _own(metadata.get(OWN, "{}"), path)
    if not config and "lora_adapter_metadata" in metadata:
        # diffusers keeps peft's config in the file, its keys after the part's name.
        where = f"the metadata of {path}"
        kept = _object(metadata["lora_adapter_metadata"], where)
        config = _checked({name.partition(".")[2]: value for name, value in kept.items()}, where)
    alpha, rslora = config.get("lora_alpha"), bool(config.get("use_rslora"))
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    layers: dict[str, Factors] = {}
    halves: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        match = _NAME.fullmatch(_present_name(name))
        if match is None:
            raise ModelError(f"{path} holds {name!r}, which is no factor of a low-rank adapter")
        # Types of 8 bits have no arithmetic of their own.
        exact = value.float()
        if not bool(torch.isfinite(exact).all()):
            raise ModelError(f"{path}: {name!r} holds numbers that are not finite: get the adapter again")
        halves.setdefault(match["layer"].removeprefix(PREFIX), {})[_HALVES[match["half"]]] = exact
    for layer, parts in halves.items():
        if not {"down", "up"} <= parts.keys():
            raise ModelError(f"{path} lacks one of the two factors of the layer {layer!r}")
        rank = _rank(parts, layer, path)
        chosen = next((value for key, value in patterns.items() if _fits(layer, key)), alpha)
        if (stored := parts.get("alpha")) is not None:
            chosen = float(stored)
        scale = 1.0 if chosen is None else chosen / (rank**0.5 if rslora else rank)
        layers[layer] = Factors(parts["down"], parts["up"], scale)
    if not layers:
        raise ModelError(f"{path} holds no factors of a low-rank adapter: get the adapter again")
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(
            name.encode() + tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return AdapterFile(
        path=path,
        digest=digest.hexdigest()[:12],
        layers=layers,
        model=str(config.get("base_model_name_or_path") or ""),
        **own,
    )


def _rank(parts: Mapping[str, Tensor], layer: str, path: Path) -> int:
    """The rank of a layer's factors. Raises `ModelError` for factors that cannot be multiplied."""
    down, up, alpha = parts["down"], parts["up"], parts.get("alpha")
    if down.ndim < 2 or up.ndim < 2 or up.flatten(1).shape[1] != down.shape[0] or not down.shape[0]:
        raise ModelError(
            f"{path}: the factors of {layer!r} have the shapes {tuple(down.shape)} and {tuple(up.shape)}, which do not fit: "
            "get the adapter again"
        )
    if alpha is not None and alpha.numel() != 1:
        raise ModelError(
            f"{path}: alpha of {layer!r} is {alpha.numel()} numbers, not one: get the adapter again"
        )
    return down.shape[0]


def _own(text: str, path: Path) -> dict[str, Any]:
    """What this package's adapters say of their part and of the weights that they were made for."""
    found = _object(text, f"the metadata of {path}")
    fingerprint = found.get("fingerprint", [])
    good = isinstance(fingerprint, list) and all(
        isinstance(one, int | float) and math.isfinite(one) for one in fingerprint
    )
    words = (found.get("part"), found.get("layer", ""))
    if (
        not good
        or len(fingerprint) not in (0, COEFFICIENTS)
        or not all(isinstance(one, str | None) for one in words)
    ):
        raise ModelError(f"the metadata of {path} is damaged: get the adapter again")
    return {"part": words[0], "layer": words[1] or "", "fingerprint": tuple(fingerprint)}


_NAME = re.compile(
    r"(?P<layer>.+?)\.(?P<half>lora_A(?:\.default)?\.weight|lora_B(?:\.default)?\.weight|lora_down\.weight|lora_up\.weight|alpha)"
)
_HALVES = {
    **dict.fromkeys(("lora_A.weight", "lora_A.default.weight", "lora_down.weight"), "down"),
    **dict.fromkeys(("lora_B.weight", "lora_B.default.weight", "lora_up.weight"), "up"),
    "alpha": "alpha",
}


_OLD_ATTENTION = re.compile(
    r"(?P<layer>.+?)(\.processor)?\.(?P<name>to_q|to_k|to_v|to_out|add_k_proj|add_v_proj)_lora\.(?P<half>down|up)\.weight"
)
_OLD_LAYER = re.compile(r"(?P<layer>.+)\.lora\.(?P<half>down|up)\.weight")


def _present_name(name: str) -> str:
    """Name of a factor, given that or one of diffusers' before version 0.22."""
    if (match := _OLD_ATTENTION.fullmatch(name)) is not None:
        layer = "to_out.0" if match["name"] == "to_out" else match["name"]
        return f"{match['layer']}.{layer}.lora_{match['half']}.weight"
    if (match := _OLD_LAYER.fullmatch(name)) is not None:
        return f"{match['layer']}.lora_{match['half']}.weight"
    return name


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
        of = f"{adapter.layer}.weight"
        if of not in weights:
            raise ModelError(
                f"the adapter {adapter.path} was made for a network with {of!r}, which the {where} does not have: it was made "
                "for another model"
            )
        found = fingerprint_of(weights[of].float().flatten(1))
        if are_apart(found, adapter.fingerprint):
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
