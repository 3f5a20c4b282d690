"""How a request is split into pictures that can be drawn one by one, and joined again to be drawn together.

Each picture's request is the one that its provenance records, but for the model's defaults: it makes the same picture
alone, on any worker and in any order.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unclip.errors import RequestError
from unclip.generate.operations import (
    BY_KIND,
    Components,
    Edit,
    Generate,
    Interpolate,
    Redraw,
    TextDiff,
    Vary,
)
from unclip.generate.operations.path import path_thetas
from unclip.generate.request import Request, compact
from unclip.generate.session import choose_seed, picture_seed


def kind_of(request: Request) -> str:
    """Kind of a request, such as "generate"."""
    return str(type(request).__dataclass_fields__["kind"].default)


def with_seed(request: Request) -> Request:
    """The request with its seed, drawn if it has none."""
    return replace(request, seed=choose_seed(request.seed))


def count(request: Request) -> int:
    """Number of pictures that a request makes."""
    return len(split(with_seed(request)))


def split(request: Request) -> list[Request]:
    """One request per picture, in order. The request has its seed."""
    seed = request.seed
    assert seed is not None, "with_seed gives a request its seed"
    if isinstance(request, Generate):
        prompts = [prompt for prompt in request.prompts for _ in range(request.n)]
        return [
            replace(request, prompt=prompt, n=1, seed=picture_seed(seed, index))
            for index, prompt in enumerate(prompts)
        ]
    if isinstance(request, Vary | Redraw | Edit):
        return [replace(request, n=1, seed=picture_seed(seed, index)) for index in range(request.n)]
    if isinstance(request, Interpolate):
        thetas = path_thetas(request.thetas, request.frames)
        return [replace(request, frames=None, thetas=(theta,)) for theta in thetas]
    if isinstance(request, TextDiff):
        thetas = path_thetas(request.thetas, request.frames, request.maximum)
        return [replace(request, frames=None, thetas=(theta,)) for theta in thetas]
    if isinstance(request, Components):
        return [replace(request, dimensions=(one,)) for one in request.dimensions]
    return [request]


def join(requests: Sequence[Request]) -> Request | None:
    """One request that makes the pictures of several of one job, in their order; None where there is none.

    Pictures along a path share the inversion of the given picture, which takes longer than drawing one of them.
    """
    first = requests[0]
    if len(requests) == 1:
        return first
    if isinstance(first, Interpolate | TextDiff):
        thetas = tuple(theta for one in requests for theta in getattr(one, "thetas", None) or ())
        return replace(first, thetas=thetas)
    if isinstance(first, Components):
        return replace(
            first, dimensions=tuple(one for each in requests for one in getattr(each, "dimensions", ()))
        )
    return None


def shares_work(kind: str) -> bool:
    """Whether pictures of one job of this kind are drawn in one call."""
    return BY_KIND[kind] in (Interpolate, TextDiff, Components)


def group_of(request: Request, model: str, digest: str, sampling: Any, size: int) -> str:
    """Name that the requests have in common which `Model.run_batch` can draw together; "" for one drawn alone."""
    if not isinstance(request, Generate):
        return ""
    same = [model, digest, compact(sampling), request.size or size, bool((request.negative or "").strip())]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def with_n(request: Request, n: int | None) -> Request:
    """The request with another number of pictures. Raises `RequestError` where it has no such number."""
    if n is None:
        return request
    if isinstance(request, Generate | Vary | Redraw | Edit):
        return replace(request, n=n)
    raise RequestError(
        f"n is {n}: a request of the kind {kind_of(request)!r} has no number of pictures; leave n out"
    )


def prompt_of(request: Request) -> str | None:
    """The text of a request that a person would search for."""
    for name in ("prompt", "target"):
        text = getattr(request, name, None)
        if text:
            return text if isinstance(text, str) else "\n".join(text)
    return None
