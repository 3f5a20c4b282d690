"""OpenVINO as the program that computes the insides of a model's nets on a CPU, in float32, bfloat16 or int8.

A net is exported once from its torch module, for maps of any size and one picture at a time, and kept in the user's cache
by the model's digest. Its first and last layers, and all else of the model, stay torch's.
"""

import contextlib
import functools
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from unclip.cache import cache_folder
from unclip.errors import ModelError, RequestError, Unsupported
from unclip.networks.patch_transformer import PatchTransformer
from unclip.networks.unet import Unet
from unclip.nn.attention import KeyMask, PixelAttention
from unclip.nn.spatial_transformer import CrossAttention

logger = logging.getLogger(__name__)

BackendName = Literal["torch", "openvino"]
BackendPrecision = Literal["float32", "bfloat16", "int8"]
PRECISIONS: Final[tuple[BackendPrecision, ...]] = ("float32", "bfloat16", "int8")
FORMAT = 1
"""Number of the form of exported nets in the cache."""
LIKENESS = "likeness.json"
"""File beside int8 nets with what they cost, written once that is within the bounds."""
EXACT = 1e-3
"""Largest relative difference of an exported net's first answer in float32 from torch's."""

Template = tuple[str, ...]
"""What an inside is called with: "tensor", "mask" (a `KeyMask`), "none", or "readings 22" (of so many attentions).

Maps that cannot be halved at every level add "map 9x9": a traced doubling serves even ones alone."""


def backend_of(name: str | None, precision: str | None, device: torch.device) -> "Openvino | None":
    """The backend of a name; None for torch.

    Raises `RequestError` for an unknown name or precision or another device, `Unsupported` where the extra is missing.
    """
    if name in (None, "torch"):
        if precision is not None:
            raise RequestError(
                f"backend_precision {precision} is for the backend openvino; torch has dtype in its place"
            )
        return None
    if name != "openvino":
        raise RequestError(f"backend {name} is not one of torch, openvino")
    chosen: BackendPrecision | None = next(
        (known for known in PRECISIONS if precision in (known, None)), None
    )
    if chosen is None:
        raise RequestError(f"backend_precision {precision} is not one of {', '.join(PRECISIONS)}")
    if device.type != "cpu":
        raise RequestError(f"the backend openvino computes on the CPU, not on {device}: give device cpu")
    library()
    return Openvino(precision=chosen)


def library() -> Any:
    """The module openvino. Raises `Unsupported` naming the extra where it is not installed."""
    try:
        with _no_telemetry():
            import openvino
    except ImportError as error:
        raise Unsupported(
            "the backend openvino needs the package openvino, which is not installed: pip install 'unclip[openvino]'"
        ) from error
    return openvino


@functools.cache
def core() -> Any:
    """OpenVINO's core, one for the process and never freed.

    Its CPU plugin gives the main thread another stack for signals. Where several are freed in the order of their making, that
    stack is no longer mapped, and the next signal ends the process.
    """
    return library().Core()


def quantiser() -> Any:
    """The module nncf, which quantises exported nets. Raises `Unsupported` naming the extra where it is missing."""
    try:
        with warnings.catch_warnings(), _no_telemetry():
            warnings.simplefilter("ignore")
            import nncf
    except ImportError as error:
        raise Unsupported(
            "int8 needs the package nncf, which is not installed: pip install 'unclip[openvino]'"
        ) from error
    # Its own `set_log_level` would also change handlers that other programs have put there.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _no_telemetry() -> Iterator[None]:
    """Context in which openvino and nncf are imported without the package that reports every import and export to a server."""
    if "openvino_telemetry" in sys.modules:
        yield
        return
    sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del sys.modules["openvino_telemetry"]


@dataclass(frozen=True, kw_only=True)
class Openvino:
    """OpenVINO with a precision: "float32", "bfloat16" products, or "int8" weights and activations."""

    precision: BackendPrecision = "float32"

    @property
    def record(self) -> dict[str, str]:
        """What a picture's provenance says about it."""
        return {"name": "openvino", "precision": self.precision, "version": library().__version__}

    def place(self, digest: str, part: str, network: nn.Module) -> None:
        """Let OpenVINO compute the insides of all nets of a part. Raises `ModelError` for int8 without calibration."""
        for path, net in nets(network):
            folder = net_folder(digest, part, path)
            if self.precision == "int8" and not (folder / self.precision / LIKENESS).is_file():
                raise ModelError(
                    f"the {part} is not quantised for OpenVINO on this machine yet: run `unclip accelerate MODEL`, with --size "
                    "for other sizes than its own, which calibrates it and reports what int8 costs in likeness"
                )
            net.inside = CompiledInside(net, folder, self.precision)  # pyright: ignore[reportAttributeAccessIssue]


def nets(network: nn.Module) -> list[tuple[str, Unet | PatchTransformer]]:
    """Path and module of each net within a network that has an inside."""
    return [
        (path or "net", module)
        for path, module in network.named_modules()
        if isinstance(module, Unet | PatchTransformer)
    ]


def net_folder(digest: str, part: str, path: str) -> Path:
    """Folder of the cache for the exports of a net, a folder for each precision."""
    version = library().__version__.split("-")[0]
    return cache_folder() / "openvino" / digest / f"{part}.{path}-{FORMAT}-{version}"


class CompiledInside:
    """An inside computed by OpenVINO: exported when it is first called, or read from the cache, and compiled."""

    def __init__(self, net: Unet | PatchTransformer, folder: Path, precision: BackendPrecision):
        self._net, self._folder = net, folder
        self._precision: BackendPrecision = precision
        self._requests: dict[Template, Any] = {}

    def __call__(self, *given: Any) -> Tensor:
        """As the net's own `inside`, picture by picture."""
        template, flat = flattened(self._net, given)
        if template not in self._requests:
            self._requests[template] = self._compile(template, flat)
        request = self._requests[template]
        rows = []
        for one in range(len(flat[0])):
            taken = [tensor[one : one + 1].contiguous().numpy() for tensor in flat]
            answer = request.infer(taken, share_inputs=True, share_outputs=True)
            rows.append(torch.from_numpy(answer[0].copy()))
        return torch.cat(rows)

    def _compile(self, template: Template, flat: Sequence[Tensor]) -> Any:
        if self._precision == "int8":
            file = model_file(self._folder / "int8", template)
            if not file.is_file():
                raise ModelError(
                    f"{self._folder} was calibrated for other conditions of the net: run `unclip accelerate MODEL` again"
                )
        else:
            file = exported(self._net, self._folder, template, flat)
        return compiled(file, self._precision)


def compiled(file: Path, precision: BackendPrecision) -> Any:
    """An inference request of an exported net. Raises `ModelError` for one that is damaged."""
    # Compiled kernels are kept as well: compiling takes seconds for large nets.
    kept = {"CACHE_DIR": str(file.parent / "compiled")}
    try:
        made = core().compile_model(core().read_model(file), "CPU", settings(precision) | kept)
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO cannot read {file}: remove {file.parent}, and the net is exported again"
        ) from error
    return made.create_infer_request()


def settings(precision: BackendPrecision) -> dict[str, Any]:
    """Properties of OpenVINO's CPU plugin.

    Its generated subgraphs ("snippets") are off: with 2026.4 and AVX-512, compiling a U-Net in float32 ends the process.
    """
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "SNIPPETS_MODE": "DISABLE",
    }


def exported(net: Unet | PatchTransformer, folder: Path, template: Template, flat: Sequence[Tensor]) -> Path:
    """File of a net's inside in float32, exported unless it is in the cache.

    Raises `ModelError` where the export does not compute what the net does.
    """
    file = model_file(folder / "float32", template)
    if file.is_file():
        return file
    openvino = library()
    example = [
        tensor[:1].detach().float().clone() if tensor.is_floating_point() else tensor[:1].clone()
        for tensor in flat
    ]
    inside = _Inside(net, template, _readers(net)).eval()
    with torch.inference_mode(False), torch.no_grad(), _quietly():
        expected = inside(*example)
        traced = torch.jit.trace(inside, tuple(example), check_trace=False)
        shapes = [_shape(openvino, tensor) for tensor in example]
        model = openvino.convert_model(traced, example_input=tuple(example), input=shapes)
    write(file, model, openvino)
    answer = compiled(file, "float32").infer([tensor.numpy() for tensor in example])[0]
    error = float((torch.from_numpy(answer) - expected).norm() / expected.norm())
    logger.info("exported %s for OpenVINO; its answer differs by %.1e", file.parent.parent.name, error)
    if not error < EXACT:
        file.unlink()
        raise ModelError(f"OpenVINO's export of the net differs by {error:.1e}: use the backend torch")
    return file


def model_file(folder: Path, template: Template) -> Path:
    """File of an exported net for what it is called with."""
    key = hashlib.sha256(json.dumps(template).encode()).hexdigest()[:12]
    return folder / f"{key}.xml"


def write(file: Path, model: Any, openvino: Any) -> None:
    """Write a net into the cache; the file that names it appears last."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.parent / f".{secrets.token_hex(6)}"
    scratch.mkdir()
    try:
        openvino.save_model(model, scratch / file.name, compress_to_fp16=False)
        for made in (file.with_suffix(".bin").name, file.name):
            os.replace(scratch / made, file.parent / made)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def flattened(net: Unet | PatchTransformer, given: Sequence[Any]) -> tuple[Template, list[Tensor]]:
    """The template of an inside's arguments, and their tensors in order."""
    template, flat = [], []
    for one in given:
        if one is None:
            template.append("none")
        elif isinstance(one, Tensor):
            template.append("tensor")
            flat.append(one)
        elif isinstance(one, KeyMask):
            template.append("mask")
            flat.append(one.tokens)
        else:
            template.append(f"readings {len(one)}")
            flat.extend(one.values())
    if isinstance(net, Unet):
        unit, sides = 2 ** (len(net.config.multiples) - 1), flat[0].shape[-2:]
        if any(side % unit for side in sides):
            template.append(f"map {sides[0]}x{sides[1]}")
    return tuple(template), flat


def _readers(net: nn.Module) -> tuple[nn.Module, ...]:
    """The attentions that `Unet.read` reads context tokens for, in its order."""
    return tuple(module for module in net.modules() if isinstance(module, PixelAttention | CrossAttention))


def _own_inside(net: Unet | PatchTransformer) -> Callable[..., Tensor]:
    """The inside that torch computes, whatever was put in its place."""
    kind: Any = type(net)
    return functools.partial(kind.inside, net)


class _Inside(nn.Module):
    """A net's inside as a function of tensors alone; `keys` are the attentions that readings belong to."""

    def __init__(self, net: Unet | PatchTransformer, template: Template, keys: tuple[nn.Module, ...]):
        super().__init__()
        self.net, self.template, self.keys = net, template, keys

    def forward(self, *flat: Tensor) -> Tensor:
        tensors, given = iter(flat), []
        for kind in self.template:
            if kind == "none":
                given.append(None)
            elif kind == "tensor":
                given.append(next(tensors))
            elif kind == "mask":
                given.append(KeyMask(next(tensors)))
            elif kind.startswith("readings"):
                given.append({key: next(tensors) for key in self.keys})
        return _own_inside(self.net)(*given)


def _shape(openvino: Any, tensor: Tensor) -> Any:
    """One picture; maps of any size, and any number of tokens."""
    shape = [1, *tensor.shape[1:]]
    if tensor.ndim == 4:
        shape[2:] = [-1, -1]
    elif tensor.ndim == 3 or tensor.dtype == torch.bool:
        shape[1] = -1
    return openvino.PartialShape(shape)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Tracing warns of every shape that is compared, where the answer is checked; and NNCF prints its progress."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


class Recorder:
    """An inside that keeps up to `most` of the single pictures' arguments that it is called with, evenly over time."""

    def __init__(self, net: Unet | PatchTransformer, most: int):
        self._net, self._call = net, _own_inside(net)
        self._most, self._stride, self._seen = most, 1, 0
        self.template: Template = ()
        self.kept: list[list[Tensor]] = []

    def __call__(self, *given: Any) -> Tensor:
        """As the net's own `inside`."""
        template, flat = flattened(self._net, given)
        self.template = self.template or template
        for one in range(len(flat[0]) if template == self.template else 0):
            if self._seen % self._stride == 0:
                self.kept.append([tensor[one : one + 1].detach().clone() for tensor in flat])
            self._seen += 1
            if len(self.kept) > self._most:
                # Half of them, and half as many from now on.
                self.kept, self._stride = self.kept[::2], 2 * self._stride
        return self._call(*given)


def quantise(net: Unet | PatchTransformer, folder: Path, recorder: Recorder) -> Path:
    """File of the inside with int8 weights and activations, calibrated on what was recorded; not accepted yet."""
    openvino, nncf = library(), quantiser()
    if not recorder.kept:
        raise RequestError(
            "the calibration drew no picture that used the net: give it captions and more steps"
        )
    source = exported(net, folder, recorder.template, recorder.kept[0])
    data = [[tensor.numpy() for tensor in flat] for flat in recorder.kept]
    attends = isinstance(net, PatchTransformer) or bool(_readers(net))
    with _quietly():
        made = nncf.quantize(
            core().read_model(source),
            nncf.Dataset(data),
            subset_size=len(data),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
        )
    file = model_file(folder / "int8", recorder.template)
    (folder / "int8" / LIKENESS).unlink(missing_ok=True)
    shutil.rmtree(folder / "int8" / "compiled", ignore_errors=True)
    write(file, made, openvino)
    return file
