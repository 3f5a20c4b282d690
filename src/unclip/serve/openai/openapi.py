"""OpenAPI document of the compatible API."""

import importlib.metadata
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unclip.serve.guard.errors import MAX_MESSAGE, json_response
from unclip.serve.openai.calls import EXTENSIONS
from unclip.serve.openai.options import MAX_N, MAX_PARTIAL, MAX_PROMPT, SIDES, Options
from unclip.serve.openai.routes import OpenAI, answered

_JSON = "application/json"


def document_route(api: OpenAI) -> Route:
    """`GET /openapi.json`."""

    async def answer(request: Request) -> Response:
        models = await api.backend.models()
        sizes = {size for model in models for size in model.sizes}
        any_shape = any(model.step is not None for model in models)
        return json_response(document(api.options, tuple(sizes), any_shape=any_shape))

    return Route("/openapi.json", answered(answer))


def document(options: Options, sizes: tuple[int, ...] = (), *, any_shape: bool = False) -> dict[str, Any]:
    """OpenAPI 3.1 document of the paths under `/v1`; `sizes` are those that the models draw, `any_shape` whether one draws more."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "unclip",
            "summary": "The image API that DALL·E 2 had",
            "version": importlib.metadata.version("unclip"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}, {}],
        "paths": paths(options, sizes, any_shape=any_shape),
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def paths(options: Options, sizes: tuple[int, ...] = (), *, any_shape: bool = False) -> dict[str, Any]:
    """Paths of the compatible API."""
    common = _common(options, sizes, any_shape)
    prompt = {"type": "string", "minLength": 1, "maxLength": MAX_PROMPT, "description": "what to draw"}
    text = {"prompt": prompt} | common | _texts(options)
    picture = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    edit = {"image": picture, "mask": picture} | text
    variation = {"image": picture} | common
    return {
        "/v1/images/generations": {
            "post": _call("createImage", "Pictures of a prompt", {_JSON: _object(text, ["prompt"])}, True)
        },
        "/v1/images/edits": {
            "post": _call(
                "createImageEdit",
                "A picture with its transparent pixels, or those of a mask, drawn under a prompt",
                {"multipart/form-data": _object(edit, ["image", "prompt"])},
                True,
            )
        },
        "/v1/images/variations": {
            "post": _call(
                "createImageVariation",
                "Variations of a picture",
                {"multipart/form-data": _object(variation, ["image"])},
                False,
            )
        },
        "/v1/models": {"get": _read("listModels", "The models", "ListModelsResponse")},
        "/v1/models/{model}": {
            "get": _read("retrieveModel", "A model", "Model", [_parameter("model", {"type": "string"})])
        },
        "/v1/files/images/{name}": {
            "get": {
                "operationId": "retrieveImage",
                "summary": "A picture, by the URL of an answer, for as long as that works",
                "security": [{}],
                "parameters": [_parameter("name", {"type": "string"})],
                "responses": {
                    "200": {
                        "description": "PNG",
                        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
                    },
                    **_errors(),
                },
            }
        },
    }


def schemas() -> dict[str, Any]:
    """Schemas of the answers."""
    text, whole, nothing = {"type": "string"}, {"type": "integer"}, {"type": "null"}
    return {
        "ImagesResponse": _closed(
            {"created": whole, "data": {"type": "array", "items": {"$ref": "#/components/schemas/Image"}}}
        ),
        "Image": {
            **_closed(
                {
                    "url": {"type": "string", "format": "uri"},
                    "b64_json": {"type": "string", "contentEncoding": "base64"},
                    "seed": {"type": "integer", "description": "extension: makes this picture again"},
                    "warnings": {"type": "array", "items": text, "description": "extension"},
                },
                ["seed"],
            ),
            "oneOf": [{"required": ["url"]}, {"required": ["b64_json"]}],
        },
        "ImageEvent": {
            "description": "one server-sent event of a stream",
            **_closed({"event": {"enum": [*_EVENTS, "error"]}, "data": _event_data()}),
        },
        "Model": _closed(
            {
                "id": text,
                "object": {"const": "model"},
                "created": whole,
                "owned_by": text,
                "shutdown_date": {"anyOf": [text, nothing]},
            }
        ),
        "ListModelsResponse": _closed(
            {
                "object": {"const": "list"},
                "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
            }
        ),
        "Error": _closed(
            {
                "message": {"type": "string", "maxLength": MAX_MESSAGE + 3},
                "type": text,
                "param": {"anyOf": [text, nothing]},
                "code": {"anyOf": [text, nothing]},
            }
        ),
        "ErrorResponse": _closed({"error": {"$ref": "#/components/schemas/Error"}}),
    }


_EVENTS = [
    f"{family}.{kind}"
    for family in ("image_generation", "image_edit")
    for kind in ("partial_image", "completed")
]


def _event_data() -> dict[str, Any]:
    """Data of an event: JSON as text."""
    text, whole = {"type": "string"}, {"type": "integer"}
    fields: dict[str, Any] = {
        "type": {"enum": _EVENTS},
        "b64_json": {"type": "string", "contentEncoding": "base64"},
        "created_at": whole,
        "size": text,
        "quality": text,
        "background": text,
        "output_format": {"const": "png"},
    }
    more = {
        "partial_image_index": whole,
        "usage": {"type": "object", "description": "of finished pictures; nothing is billed"},
        "seed": whole,
        "warnings": {"type": "array", "items": text},
    }
    picture = _closed(fields | more, list(fields))
    content = {"oneOf": [picture, {"$ref": "#/components/schemas/ErrorResponse"}]}
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": content}


def _common(options: Options, sizes: tuple[int, ...], any_shape: bool) -> dict[str, Any]:
    """Fields of all three calls."""
    sides = sorted({*SIDES, *(() if options.strict else sizes)})
    named = [*([] if options.strict else ["auto"]), *(f"{side}x{side}" for side in sides)]
    size: dict[str, Any] = {"type": "string", "enum": named}
    if any_shape and not options.strict:
        size = {
            "type": "string",
            "anyOf": [{"enum": named}, {"pattern": "^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$"}],
        }
    fields: dict[str, Any] = {
        "model": {
            "type": "string",
            "description": "a served model; dall-e-2 is another name of the default one",
        },
        "n": {"type": "integer", "minimum": 1, "maximum": MAX_N, "default": 1},
        "size": size,
        "response_format": {"type": "string", "enum": ["url", "b64_json"], "default": "url"},
        "user": {"type": "string", "description": "accepted, and not used"},
    }
    if not options.strict:
        fields |= {
            "quality": {"type": "string", "enum": ["standard", "auto"]},
            "background": {"type": "string", "enum": ["auto", "opaque"]},
            "output_format": {"type": "string", "enum": ["png"]},
            **{name: {"description": f"extension: {words}"} for name, words in EXTENSIONS.items()},
            "seed": {
                "type": "integer",
                "minimum": 0,
                "description": "extension: the same seed, the same picture",
            },
        }
    return fields


def _texts(options: Options) -> dict[str, Any]:
    """Fields of the calls with a prompt."""
    if options.strict:
        return {}
    return {
        "stream": {"type": "boolean", "default": False},
        "partial_images": {"type": "integer", "minimum": 0, "maximum": MAX_PARTIAL, "default": 0},
        "negative_prompt": {"type": "string", "description": "extension: what guidance leads away from"},
    }


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"schema": {"type": "object", "properties": properties, "required": required}}


def _closed(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _call(name: str, summary: str, content: dict[str, Any], streams: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {_JSON: {"schema": {"$ref": "#/components/schemas/ImagesResponse"}}}
    if streams:
        answer["text/event-stream"] = {"schema": {"$ref": "#/components/schemas/ImageEvent"}}
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "Pictures", "content": answer}, **_errors()},
    }


def _read(
    name: str, summary: str, schema: str, parameters: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    content = {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters or [],
        "responses": {"200": {"description": summary, "content": content}, **_errors()},
    }


def _errors() -> dict[str, Any]:
    """Statuses of errors; all have one shape."""
    content = {_JSON: {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
    words = {
        "400": "A request that cannot be run; the message says what to change",
        "401": "No API key, or a wrong one",
        "404": "An unknown model or picture, or an expired URL",
        "405": "Another method",
        "429": "Too many requests, or a full queue: try again after `Retry-After` seconds",
        "503": "The server cannot draw now: try again after `Retry-After` seconds",
    }
    return {status: {"description": text, "content": content} for status, text in words.items()}
