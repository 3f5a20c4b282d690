"""Heads that score embeddings: a linear layer or a small MLP in a safetensors file, or a function of one's own."""

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import gelu, linear, normalize, relu, sigmoid

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": relu, "gelu": gelu}
OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "sigmoid": sigmoid}
_ROWS = 8192


@dataclass(frozen=True)
class Head:
    """Scores of embeddings. digest: of what computes them; score: float32 rows to a float score each, or a bool.

    It can be sent to other machines, which open the same file or function (`given`: the arguments of `open_head`).
    """

    digest: str
    score: Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, " n"] | Bool[np.ndarray, " n"]]
    given: tuple[str, str | None, int | None, str]

    def __reduce__(self) -> Any:
        return _opened_again, (self.digest, *self.given)


def _opened_again(digest: str, name: str, activation: str | None, output: int | None, device: str) -> Head:
    found = open_head(name, activation=activation, output=output, device=device)
    if found.digest != digest:
        raise ValueError(f"{name} is another one on this machine: copy the same file to all machines")
    return found


def open_head(
    name: str,
    *,
    activation: str | None = None,
    output: int | None = None,
    device: str | torch.device = "cpu",
) -> Head:
    """The head that `name` says: FILE.safetensors or MODULE:FUNCTION.

    A file holds pairs `NAME.weight` (out, in) and, if wanted, `NAME.bias` (out), applied in the order of the numbers in their
    names. Its metadata may say `activation` ("none", "relu", "gelu": between layers), `normalised` ("true", "false": whether rows
    are brought to length 1 first; default "true") and `output` ("none", "sigmoid"). output: which score of several, from 0.
    Raises ValueError for a file or function that is none.
    """
    given = name, activation, output, str(device)
    if name.lower().endswith(".safetensors"):
        return _from_file(Path(name).absolute(), given)
    if activation is not None or output is not None:
        raise ValueError(
            f"an activation and an output are settings of .safetensors files, which {name} is not"
        )
    module, colon, function = name.rpartition(":")
    if not colon or not module or not function:
        raise ValueError(f"{name} is neither a .safetensors file nor MODULE:FUNCTION")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"{name} is no function")
    score: Any = found
    return Head(_digest_of(name, found), score, given)


def _digest_of(name: str, function: object) -> str:
    """Of a function's name, and the text of its file where that is known: another text is another rule."""
    try:
        text = Path(inspect.getsourcefile(function) or "").read_bytes()  # pyright: ignore[reportArgumentType]
    except (TypeError, OSError):
        text = b""
    return hashlib.sha256(name.encode() + b"\0" + text).hexdigest()


def _from_file(file: Path, given: tuple[str, str | None, int | None, str]) -> Head:
    _, activation, output, place = given
    device = torch.device(place)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key).to(device).float() for key in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is no safetensors file, or damaged: {error}") from error
    layers = _layers(file, tensors)
    between = activation or metadata.get("activation")
    if between is None and len(layers) > 1:
        raise ValueError(
            f"{file} has {len(layers)} layers and does not say what is between them: give --activation "
            f"{', '.join(ACTIVATIONS)} (the LAION aesthetic predictor has none)"
        )
    between, last = between or "none", metadata.get("output", "none")
    normalised = metadata.get("normalised", "true")
    for what, value, known in (
        ("activation", between, ACTIVATIONS),
        ("output", last, OUTPUTS),
        ("normalised", normalised, ("true", "false")),
    ):
        if value not in known:
            raise ValueError(f"{file}: its {what} is {value!r}; choose from {', '.join(known)}")
    width = len(layers[-1][0])
    if output is None and width > 1:
        raise ValueError(f"{file} gives {width} scores: say which with --output-index N, from 0")
    chosen = output or 0
    if not 0 <= chosen < width:
        raise ValueError(f"{file} gives {width} scores, numbered from 0; {chosen} is none of them")

    @torch.no_grad()
    def score(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        if rows.shape[1] != layers[0][0].shape[1]:
            raise ValueError(
                f"{file} reads embeddings of {layers[0][0].shape[1]} numbers, and these have {rows.shape[1]}: it was made "
                "for another CLIP"
            )
        found = []
        for start in range(0, len(rows), _ROWS):
            hidden = torch.from_numpy(rows[start : start + _ROWS]).to(device)
            hidden = normalize(hidden, dim=1) if normalised == "true" else hidden
            for number, (weight, bias) in enumerate(layers):
                hidden = linear(ACTIVATIONS[between](hidden) if number else hidden, weight, bias)
            found.append(OUTPUTS[last](hidden[:, chosen]).cpu().numpy())
        return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)

    digest = hashlib.sha256(file.read_bytes() + f"\0{between} {last} {normalised} {chosen}".encode())
    return Head(digest.hexdigest(), score, (str(file), *given[1:]))


def _layers(file: Path, tensors: dict[str, Tensor]) -> list[tuple[Tensor, Tensor | None]]:
    names = [name.removesuffix("weight") for name in tensors if name == "weight" or name.endswith(".weight")]
    names.sort(key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    layers = [(tensors[f"{name}weight"], tensors.get(f"{name}bias")) for name in names]
    known = {f"{name}{part}" for name in names for part in ("weight", "bias")}
    if unknown := sorted(tensors.keys() - known):
        raise ValueError(f"{file} is no linear head or MLP: it also holds {', '.join(unknown[:3])}")
    if not layers:
        raise ValueError(
            f"{file} holds no layer: a head has tensors such as weight and bias, or layers.0.weight"
        )
    if len(layers) > 1 and not all(re.search(r"\d", name) for name in names):
        raise ValueError(f"{file}: the names of its layers have no numbers, so their order is not known")
    for number, (name, (weight, bias)) in enumerate(zip(names, layers)):
        fits = weight.ndim == 2 and (number == 0 or weight.shape[1] == len(layers[number - 1][0]))
        if not fits or (bias is not None and tuple(bias.shape) != (len(weight),)):
            raise ValueError(f"{file}: {name}weight, of shape {tuple(weight.shape)}, does not fit its layer")
    return layers
