"""Provenance: what a picture records about how it was made, format 2. `unclip.generate.replay` reads formats 1 and 2.

The request is complete (its sampling resolved, its seed the picture's own), so that it makes the picture again alone.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from unclip.generate.number_type import Packing
from unclip.generate.request import Request, compact
from unclip.generate.sources import Source
from unclip.nn.winograd import Widths

FORMAT = 2


def provenance_of(
    request: Request,
    *,
    model: str,
    digest: str,
    size: tuple[int, int],
    device: str,
    dtype: str,
    sources: Sequence[Source] = (),
    results: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
    parts: Mapping[str, str] | None = None,
    adapters: Mapping[str, float] | None = None,
    backend: Mapping[str, str] | None = None,
    packed: Packing = False,
) -> dict[str, Any]:
    """JSON-able provenance of one picture of `size` (width, height). `results` are measurements, such as a PSNR.

    `parts` names the models that parts were taken from, where they are mixed, `adapters` the adapters and their strengths,
    `backend` what computed the nets, its precision and its version, where that was not torch, and `packed` that float32
    layers were oneDNN's, by the widths from which convolutions took fewer products if any did.
    """
    recorded = compact(request)
    return {
        "provenance": FORMAT,
        "request": recorded,
        "size": list(size),
        **({"sources": [source.sha256 for source in sources]} if sources else {}),
        **({"results": dict(results)} if results else {}),
        **({"warnings": list(warnings)} if warnings else {}),
        **({"composite": True} if request.composite else {}),
        "model": model,
        **({"parts": dict(parts)} if parts else {}),
        **({"adapters": dict(adapters)} if adapters else {}),
        "digest": digest,
        "unclip": importlib.metadata.version("unclip"),
        "device": device,
        "dtype": dtype,
        **({"packed": list(packed) if isinstance(packed, Widths) else True} if packed else {}),
        **({"backend": dict(backend)} if backend else {}),
        "torch": torch.__version__,
    }
