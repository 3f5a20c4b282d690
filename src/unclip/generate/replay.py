"""Reading of provenance, to make a picture again: format 2, and format 1, which version 0.1 wrote."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, NamedTuple

from unclip.config import read_field, read_value, shown
from unclip.errors import RequestError
from unclip.generate.number_type import Packing
from unclip.generate.operations import BY_KIND, read_request
from unclip.generate.provenance import FORMAT
from unclip.generate.request import Request
from unclip.nn.winograd import Widths
from unclip.stages.sampling import DEFAULTS, FLAT_NAMES, of_0_1, sampling


class Replay(NamedTuple):
    """What provenance says: the complete request, the hashes of its sources, and the model."""

    request: Request
    sources: tuple[str, ...]
    model: str
    digest: str
    device: str | None
    dtype: str | None
    strip: bool
    """Whether the picture is a strip of all pictures of the request."""
    parts: Mapping[str, str] = {}
    """Part -> name of the other model that it was taken from."""
    backend: str | None = None
    """What computed the nets, where that was not torch, and its precision."""
    backend_precision: str | None = None
    packed: Packing = False
    """Whether float32 layers were oneDNN's, laid out once."""

    @property
    def base(self) -> str:
        """Name of the model that the other parts belong to."""
        return self.model.split(" + ")[0] if self.parts else self.model


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What provenance says beside the request."""

    model: str
    digest: str
    sources: tuple[str, ...] | None = None
    size: tuple[int, int] | int | None = None
    layout: Literal["strip"] | None = None
    device: str | None = None
    dtype: str | None = None
    results: dict[str, Any] | None = None
    warnings: tuple[str, ...] | None = None
    composite: bool | None = None
    unclip: str | None = None
    torch: str | None = None
    parts: dict[str, str] | None = None
    backend: dict[str, str] | None = None
    packed: bool | tuple[int, int, int] | None = None


def read_replay(provenance: Mapping[str, Any] | Any) -> Replay:
    """Replay of a picture's provenance.

    Everything in it is checked before it is used, as anyone may have written it. Raises `RequestError`, naming the field,
    for another format, an unknown operation, or a value of another type.
    """
    if not isinstance(provenance, Mapping):
        raise RequestError(f"provenance: expected an object with keys, got {shown(provenance)}")
    found = provenance.get("provenance", provenance.get("recipe"))
    if _is(provenance.get("provenance"), FORMAT):
        word, names = "provenance", {"digest": "digest"}
        data = provenance.get("request")
    elif "provenance" not in provenance and _is(found, 1):
        word, names = "recipe", {"digest": "weights"}
        data = _request_of_format_1(provenance)
    else:
        raise RequestError(f"the provenance has format {shown(found)}, this version reads 1 and {FORMAT}")
    request = _read_complete(data)
    record = _read_record(provenance, word, names)
    return Replay(
        request=request,
        sources=record.sources or (),
        model=record.model,
        digest=record.digest,
        device=record.device,
        dtype=record.dtype,
        strip=record.layout == "strip",
        parts=record.parts or {},
        backend=(record.backend or {}).get("name"),
        backend_precision=(record.backend or {}).get("precision"),
        packed=Widths(*record.packed) if isinstance(record.packed, tuple) else bool(record.packed),
    )


def _is(value: Any, number: int) -> bool:
    return type(value) is int and value == number


def _read_record(provenance: Mapping[str, Any], word: str, names: Mapping[str, str]) -> _Record:
    sources = provenance.get("sources")
    if not isinstance(sources, list | tuple | None) or not all(isinstance(one, str) for one in sources or ()):
        raise RequestError("the provenance is damaged: its sources are not a list of hashes")
    values = {}
    for field in fields(_Record):
        name = names.get(field.name, field.name)
        if name in provenance:
            values[field.name] = read_field(
                _Record, field.name, provenance[name], f"{word}.{name}", error=RequestError
            )
        elif field.default is MISSING:
            raise RequestError(f"{word}: the key {name!r} is missing")
    return _Record(**values)


RECORDED = ("seed", "size", "thetas", "strength")
"""Fields that a recorded request always has, where its kind knows them: with a default, it would make another picture."""


def _read_complete(data: Any) -> Request:
    request = read_request(data)
    for name in RECORDED:
        if name in {field.name for field in fields(request)} and data.get(name) is None:
            raise RequestError(f"the provenance is damaged: its request has no {name}")
    return request


_KINDS = {"pca": "components"}
_RENAMED = {
    "generate": {"prompt": "prompt", "negative": "negative", "size": "size"},
    "redraw": {"prompt": "prompt", "negative": "negative", "size": "size", "strength": "strength"},
    "vary": {"eta": "eta", "size": "size"},
    "interpolate": {"theta": "thetas", "noise": "noise", "size": "size"},
    "text_diff": {"prompt": "target", "baseline": "baseline", "theta": "thetas", "size": "size"},
    "edit": {"prompt": "prompt", "negative": "negative", "box": "box"},
    "outpaint": {name: name for name in ("prompt", "negative", "left", "top", "right", "bottom")},
    "upscale": {"size": "size"},
    "reconstruct": {"size": "size"},
    "pca": {"dimensions": "dimensions", "basis": "basis", "size": "size"},
}


def _request_of_format_1(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """JSON of the request that a flat recipe of version 0.1 stands for."""
    operation: str = read_value(str, recipe.get("operation"), "recipe.operation", error=RequestError)
    if operation not in _RENAMED:
        raise RequestError(
            f"the picture was made by {shown(operation)}, which this version does not know: it knows the operations "
            f"{', '.join(_RENAMED)}"
        )
    kind = _KINDS.get(operation, operation)
    values = {new: recipe[old] for old, new in _RENAMED[operation].items() if recipe.get(old) is not None}
    for name in ("thetas", "dimensions"):
        if name in values and not isinstance(values[name], list):
            values[name] = [values[name]]
    if operation == "upscale" and isinstance(values.get("size"), list):
        values["size"] = max(read_value(tuple[int, int], values["size"], "recipe.size", error=RequestError))
    for old, new in {**_RENAMED[operation], "seed": "seed"}.items():
        if new in values:
            read_field(BY_KIND[kind], new, values[new], f"recipe.{old}", error=RequestError)
    # 0.1 recorded every setting that took part, so what it left out is the default of that version.
    settings = sampling(**of_0_1({name: recipe[name] for name in FLAT_NAMES if name in recipe})).over(
        DEFAULTS
    )
    if operation in ("generate", "redraw", "vary"):
        values["n"] = 1
    return {"kind": kind, "seed": recipe.get("seed"), "sampling": settings, **values}
