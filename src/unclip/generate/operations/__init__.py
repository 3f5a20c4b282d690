"""Registry of operations: one request class per file. Imports no torch."""

from collections.abc import Mapping

from unclip.config import from_dict, shown
from unclip.errors import RequestError
from unclip.generate.operations.components import Components
from unclip.generate.operations.edit import Edit
from unclip.generate.operations.generate import Generate
from unclip.generate.operations.interpolate import Interpolate
from unclip.generate.operations.outpaint import Outpaint
from unclip.generate.operations.reconstruct import Reconstruct
from unclip.generate.operations.redraw import Redraw
from unclip.generate.operations.text_diff import TextDiff
from unclip.generate.operations.upscale import Upscale
from unclip.generate.operations.vary import Vary
from unclip.generate.request import Request

REQUESTS: tuple[type[Request], ...] = (
    Generate,
    Redraw,
    Vary,
    Interpolate,
    TextDiff,
    Edit,
    Outpaint,
    Upscale,
    Reconstruct,
    Components,
)
BY_KIND: dict[str, type[Request]] = {str(one.__dataclass_fields__["kind"].default): one for one in REQUESTS}


def read_request(data: object) -> Request:
    """Request from its JSON. Raises `RequestError` for an unknown kind or key, or a value that does not fit."""
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or kind not in BY_KIND:
        raise RequestError(f"the request has the kind {shown(kind)}; this version knows {', '.join(BY_KIND)}")
    return from_dict(BY_KIND[kind], data, error=RequestError)
