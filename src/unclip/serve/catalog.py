"""The models that a server offers: what each can do, from their configs; no weights are loaded."""

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from unclip.errors import RequestError, Unsupported
from unclip.generate.operations import (
    REQUESTS,
    Components,
    Edit,
    Generate,
    Outpaint,
    Redraw,
    TextDiff,
)
from unclip.generate.request import Request, compact
from unclip.serve.plan import kind_of
from unclip.stages.extent import MAX_SIDE
from unclip.stages.sampling import Sampling

_EXAMPLES: Mapping[type[Request], Mapping[str, Any]] = {
    Generate: {"prompt": "x"},
    Redraw: {"prompt": "x"},
    Edit: {"prompt": "x"},
    TextDiff: {"target": "x"},
    Outpaint: {"left": 1},
    Components: {"dimensions": (1,)},
}


class Checked(NamedTuple):
    """A request that its model can run."""

    sampling: Sampling
    digest: str
    size: int
    """Side that is drawn unless the request says another."""


class Catalog:
    """Models by the names that requests use, each opened when it is first asked about."""

    def __init__(self, models: Mapping[str, str]):
        self.models = dict(models)
        self._opened: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Names of the models; the first is the default."""
        return list(self.models)

    def resolve(self, name: str | None) -> str:
        """`name`, or the default model's. Raises `RequestError` for a model that is not offered."""
        if name is None:
            return self.names[0]
        if name not in self.models:
            raise RequestError(f"there is no model {name[:64]!r}: choose from {', '.join(self.names)}")
        return name

    def model(self, name: str) -> Any:
        """The model (`unclip.generate.model.Model`), its weights not loaded."""
        from unclip.generate.model import Model

        with self._lock:
            if name not in self._opened:
                self._opened[name] = Model.load(self.models[name], device="cpu")
            return self._opened[name]

    def check(self, name: str, request: Request, pictures: int) -> Checked:
        """Sampling, digest and size for a request of so many given pictures. Raises `RequestError` or `Unsupported`."""
        model = self.model(name)
        sampling = model.check(request, pictures)
        size, parts = getattr(request, "size", None), model.parts
        if size is not None and kind_of(request) != "upscale":
            parts.check_size(size)
        return Checked(sampling, model.digest, parts.default_size)

    def describe(self, name: str) -> dict[str, Any]:
        """Sizes, parts, operations and default settings of a model, as JSON."""
        parts = self.model(name).parts
        operations: dict[str, bool | str] = {}
        for kind in REQUESTS:
            request = kind(**_EXAMPLES.get(kind, {}))
            try:
                parts.require(kind_of(request), request.needs(request.resolve(parts.defaults)))
                operations[kind_of(request)] = True
            except (Unsupported, RequestError) as error:
                operations[kind_of(request)] = str(error)
        return {
            "name": name,
            "title": parts.name,
            "digest": parts.digest,
            "licence": parts.licence,
            "sizes": parts.sizes,
            "default_size": parts.default_size,
            "size_step": parts.step,
            "longest_side": MAX_SIDE if parts.step is not None else parts.sizes[-1],
            "parts": list(parts.names),
            "operations": operations,
            "default_sampling": compact(parts.defaults),
        }
