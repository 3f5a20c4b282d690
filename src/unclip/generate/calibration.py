"""Quantisation of a model's nets for OpenVINO: calibrated on its own sampling, and accepted where pictures stay alike."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from unclip.config import read_field, read_value, shown
from unclip.errors import ModelError, RequestError
from unclip.generate.image import Image
from unclip.generate.model import Model
from unclip.generate.openvino_nets import (
    LIKENESS,
    PRECISIONS,
    CompiledInside,
    Openvino,
    Recorder,
    library,
    net_folder,
    nets,
    quantise,
    quantiser,
)
from unclip.generate.operations import Generate
from unclip.images.tensors import to_tensor
from unclip.stages.likeness import psnr

LEAST_PSNR = 17.0
"""A mean PSNR below this, in dB, is refused: the pictures of another seed are about 13 dB away."""
MOST_DISTANCE = 0.05
"""A mean CLIP distance above this is refused: `fast` costs 0.04, another seed 0.16 (docs/speed.md)."""
RECORDED = 32
"""Calls of each net that the calibration keeps."""
CAPTIONS = (
    "a red apple",
    "a cat to the left of a blue car",
    "a green rocket",
    "a smiling sun",
    "two yellow stars",
    "a purple umbrella",
    "a brown dog",
    "a slice of pizza",
)


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """What a precision of OpenVINO costs, against the same pictures by torch in float32."""

    precision: str
    pictures: int
    psnr: float
    """Mean PSNR of the pictures in dB."""
    least_psnr: float
    """PSNR of the picture that is farthest off, in dB."""
    clip_distance: float | None
    """Mean of 1 - cosine of the embeddings by the model's own CLIP; None where it has no image tower."""
    seconds: float
    """Processor seconds of a picture, as drawn for the comparison."""
    torch_seconds: float
    """Processor seconds of the same by torch."""

    @property
    def accepted(self) -> bool:
        """Whether the loss is within `LEAST_PSNR` and `MOST_DISTANCE`."""
        near = self.clip_distance is None or self.clip_distance <= MOST_DISTANCE
        return self.psnr >= LEAST_PSNR and near


def accelerate(
    model: Any,
    precision: str | Any = "int8",
    *,
    captions: Sequence[str] | Any = CAPTIONS,
    seed: int | Any = 1,
    size: int | Any = None,
    settings: Mapping[str, Any] | None = None,
    parts: Mapping[str, Any] | None = None,
    adapters: Mapping[Any, float] | Any = None,
) -> Likeness:
    """Likeness of a model's pictures by OpenVINO; for int8, its nets are calibrated and quantised first.

    `model`, `parts` and `adapters` are those of `unclip.load`; `size` and `settings`, short names of sampling settings, are those of
    `Model.generate`. The nets are kept in the user's cache. int8 nets count as calibrated from then on, unless the loss exceeds a bound: then they are
    removed, and `ModelError` names it. Raises `Unsupported` without the extra.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise RequestError(f"the precision {shown(precision)} is not one of {', '.join(PRECISIONS)}")
    captions = read_value(tuple[str, ...], captions, "captions", error=RequestError)
    if not captions:
        raise RequestError("there are no captions to draw: give at least one")
    seed = read_field(Generate, "seed", seed, error=RequestError)
    size = read_field(Generate, "size", size, error=RequestError)
    for caption in captions:
        Generate(prompt=caption, seed=seed, size=size)
    library()
    if precision == "int8":
        quantiser()
    opened = Model.load(
        model, device="cpu", dtype="float32", parts=parts or {}, adapters=adapters or {}, packed=False
    )
    recorders, options = _place_recorders(opened), {"size": size, **(settings or {})}
    reference, torch_seconds = _draw(opened, captions, seed, options)
    folders = []
    for (part, path), (net, recorder) in recorders.items():
        if not recorder.kept:
            continue
        folder = net_folder(opened.digest, part, path)
        if precision == "int8":
            quantise(net, folder, recorder)
            folders.append(folder / "int8")
        recorder.kept.clear()
        net.inside = CompiledInside(net, folder, Openvino(precision=precision).precision)
    made, seconds = _draw(opened, captions, seed, options)
    found = Likeness(
        precision=precision,
        pictures=len(made),
        clip_distance=_distance(opened, reference, made),
        seconds=seconds,
        torch_seconds=torch_seconds,
        **_psnrs(reference, made),
    )
    for folder in folders:
        if found.accepted:
            (folder / LIKENESS).write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
        else:
            for file in folder.glob("*.xml"):
                file.unlink()
    if precision == "int8" and not found.accepted:
        distance = "" if found.clip_distance is None else f" and a CLIP distance of {found.clip_distance:.3f}"
        raise ModelError(
            f"int8 changes the pictures of {opened.name!r} too much: {found.psnr:.1f} dB{distance}, where at least "
            f"{LEAST_PSNR:g} dB and at most {MOST_DISTANCE:g} are asked for; use the precision bfloat16 or float32"
        )
    return found


Placed = dict[tuple[str, str], tuple[Any, Recorder]]
"""(part, path of a net in it) -> the net, and what records its calls."""


def _place_recorders(model: Model) -> Placed:
    placed: Placed = {}
    for part in ("decoder", *(link.name for link in model.parts.cascade)):
        with model.parts.lend(part, nn.Module) as network:
            for path, net in nets(network):
                recorder = Recorder(net, RECORDED)
                net.inside = recorder  # pyright: ignore[reportAttributeAccessIssue]
                placed[part, path] = net, recorder
    return placed


def _draw(
    model: Model, captions: Sequence[str], seed: int, options: Mapping[str, Any]
) -> tuple[list[Image], float]:
    """One picture of each caption, and the processor seconds of each, without the first where there are more.

    The first call compiles and exports.
    """
    made, times = [], []
    for index, caption in enumerate(captions):
        begun = time.process_time()
        made += model.generate(caption, seed=seed + index, **options)
        times.append(time.process_time() - begun)
    return made, statistics.fmean(times[1:] or times)


def _psnrs(reference: Sequence[Image], made: Sequence[Image]) -> dict[str, float]:
    found = [psnr(to_tensor(one.image), to_tensor(other.image)) for one, other in zip(reference, made)]
    return {"psnr": statistics.fmean(found), "least_psnr": min(found)}


def _distance(model: Model, reference: Sequence[Image], made: Sequence[Image]) -> float | None:
    if "image_encoder" not in model.parts.capabilities:
        return None
    one, other = (model.embed_image([image.image for image in images]) for images in (reference, made))
    return float((1 - torch.cosine_similarity(one, other)).mean())
