"""Reading of provenance, to make a picture again: format 2, and format 1, which version 0.1 wrote."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from unclip.errors import RequestError
from unclip.generate.operations import read_request
from unclip.generate.provenance import FORMAT
from unclip.generate.request import Request
from unclip.stages.sampling import DEFAULTS, FLAT_NAMES, sampling


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


def read_replay(provenance: Mapping[str, Any]) -> Replay:
    """Replay of a picture's provenance. Raises `RequestError` for another format, an unknown operation, or damage."""
    if provenance.get("provenance") == FORMAT:
        request, digest = provenance.get("request"), provenance.get("digest")
    elif provenance.get("recipe") == 1:
        request, digest = _request_of_format_1(provenance), provenance.get("weights")
    else:
        found = provenance.get("provenance", provenance.get("recipe"))
        raise RequestError(f"the provenance has format {found!r}, this version reads 1 and {FORMAT}")
    sources = provenance.get("sources") or ()
    if not isinstance(sources, list | tuple) or not all(isinstance(one, str) for one in sources):
        raise RequestError("the provenance is damaged: its sources are not a list of hashes")
    return Replay(
        request=_read_complete(request),
        sources=tuple(sources),
        model=str(provenance.get("model")),
        digest=str(digest),
        device=_text(provenance.get("device")),
        dtype=_text(provenance.get("dtype")),
        strip=provenance.get("layout") == "strip",
    )


RECORDED = ("seed", "size", "thetas", "strength")
"""Fields that a recorded request always has, where its kind knows them: with a default, it would make another picture."""


def _read_complete(data: Any) -> Request:
    request = read_request(data)
    known = {field.name for field in fields(request)}
    for name in RECORDED:
        if name in known and data.get(name) is None:
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
    operation = str(recipe.get("operation"))
    if operation not in _RENAMED:
        raise RequestError(
            f"the picture was made by {operation!r}, which this version does not know: it knows {', '.join(_RENAMED)}"
        )
    values = {new: recipe[old] for old, new in _RENAMED[operation].items() if recipe.get(old) is not None}
    for name in ("thetas", "dimensions"):
        if name in values and not isinstance(values[name], list):
            values[name] = [values[name]]
    if operation == "upscale" and isinstance(values.get("size"), list):
        values["size"] = max(values["size"])
    # 0.1 recorded every setting that took part, so what it left out is the default of that version.
    settings = sampling(**{name: recipe[name] for name in FLAT_NAMES if name in recipe}).over(DEFAULTS)
    if operation in ("generate", "redraw", "vary"):
        values["n"] = 1
    return {
        "kind": _KINDS.get(operation, operation),
        "seed": recipe.get("seed"),
        "sampling": settings,
        **values,
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
