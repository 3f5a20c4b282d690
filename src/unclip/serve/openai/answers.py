"""Answers of the compatible API: JSON bodies and the events of streams."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unclip.images.headers import header_size
from unclip.serve.openai.backend import Drawn, Served
from unclip.serve.openai.calls import Call
from unclip.serve.openai.options import Options

DALL_E_2_MADE = 1698785189
"""`created` of `dall-e-2` in OpenAI's list of models."""
_NO_USAGE: dict[str, Any] = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "total_tokens": 0,
}
"""Clients require it; nothing is billed here."""


def listing(models: Sequence[Served], options: Options) -> list[dict[str, Any]]:
    """Entries of `GET /v1/models`: the models, then their other names, whose owner says what they stand for."""
    entries = [_model(model.name, "unclip", model.created) for model in models]
    names = {model.name for model in models}
    for alias, target in options.aliases.items():
        target = target or models[0].name
        if alias not in names and target in names:
            made = DALL_E_2_MADE if alias == "dall-e-2" else 0
            entries.append(_model(alias, f"unclip: another name of {target}", made))
    return entries


def _model(name: str, owner: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owner, "shutdown_date": None}


def images(
    created: int,
    drawn: Sequence[Drawn],
    contents: Mapping[str, bytes],
    url: Callable[[Drawn], str],
) -> dict[str, Any]:
    """Body of the three calls. `contents` has the PNG of each picture for `b64_json`; empty for URLs."""
    return {
        "created": created,
        "data": [
            {
                **({"b64_json": encoded(contents[one.id])} if contents else {"url": url(one)}),
                "seed": one.seed,
                **({"warnings": list(one.warnings)} if one.warnings else {}),
            }
            for one in drawn
        ],
    }


def encoded(png: bytes) -> str:
    """Base64 of a PNG."""
    return base64.b64encode(png).decode("ascii")


def event(kind: str, body: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(body)}\n\n".encode("ascii")


PING = b": ping\n\n"
"""A comment: clients parse the data of every event as JSON, and pass over comments."""


def partial_event(call: Call, png: bytes, index: int, now: int) -> bytes:
    """Event with an unfinished picture."""
    kind = f"{_family(call)}.partial_image"
    return event(kind, {"type": kind, "partial_image_index": index, **_picture(call, png, now)})


def completed_event(call: Call, png: bytes, drawn: Drawn, now: int) -> bytes:
    """Event with a finished picture."""
    kind = f"{_family(call)}.completed"
    body = {"type": kind, "usage": _NO_USAGE, "seed": drawn.seed, **_picture(call, png, now)}
    if drawn.warnings:
        body["warnings"] = list(drawn.warnings)
    return event(kind, body)


def _family(call: Call) -> str:
    return "image_edit" if call.endpoint == "edits" else "image_generation"


def _picture(call: Call, png: bytes, now: int) -> dict[str, Any]:
    width, height = header_size(png, "the picture")
    return {
        "b64_json": encoded(png),
        "created_at": now,
        "size": f"{width}x{height}",
        "quality": "auto",
        "background": "opaque",
        "output_format": "png",
    }
