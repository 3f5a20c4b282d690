"""Calls of the compatible API: what a body asks for, as one of our requests with its pictures and its output."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from unclip.errors import RequestError
from unclip.generate.operations.edit import Edit
from unclip.generate.operations.generate import Generate
from unclip.generate.operations.vary import Vary
from unclip.generate.request import MAX_PROMPT as LENIENT_PROMPT
from unclip.generate.request import MAX_SEED, Request
from unclip.serve.guard.errors import ServerError, invalid
from unclip.serve.openai.backend import Served
from unclip.serve.openai.fields import Fields, wrong_type
from unclip.serve.openai.options import MAX_N, MAX_PARTIAL, MAX_PROMPT, Options
from unclip.serve.openai.sizes import Output, read_output
from unclip.stages.extent import Sides
from unclip.stages.sampling import FLAT_NAMES, Sampling, read_sampling

Endpoint = Literal["generations", "edits", "variations"]

_SHORT = {name: name for name in FLAT_NAMES} | {"guidance_scale": "guidance", "num_inference_steps": "steps"}
"""Extensions: our short names of sampling settings, and two that other servers made common."""
EXTENSIONS = {
    "sampling": "settings of each stage, as in our own requests",
    **{name: f"sampling setting {setting}" for name, setting in _SHORT.items()},
}
"""Fields that OpenAI's API does not have, and what they are."""
_TEXT_ONLY = ("generations", "edits")


@dataclass(frozen=True, kw_only=True)
class Call:
    """A checked body, but for its pictures."""

    endpoint: Endpoint
    model: Served
    request: Request
    output: Output
    response_format: Literal["url", "b64_json"] = "url"
    stream: bool = False
    partial_images: int = 0
    fit: Literal["crop", "pad"] | None = None
    ignored: tuple[str, ...] = field(default=())
    """Names of the fields that were not used."""


def read_call(endpoint: Endpoint, fields: Fields, models: Sequence[Served], options: Options) -> Call:
    """The call that a body makes. Raises `ServerError` and `RequestError`, in OpenAI's shape and words, for a bad one."""
    model = choose_model(fields.text("model"), models, options)
    n = fields.integer("n", 1, 1, MAX_N)
    prompt = None
    if endpoint != "variations":
        prompt = _prompt(fields.required("prompt"), options)
    output = read_output(fields.text("size"), model, options, any_shape=endpoint != "edits")
    response_format = fields.choice("response_format", ("url", "b64_json"), "url")
    fields.text("user")
    stream, partial = _streaming(endpoint, fields, options)
    _check_newer(fields, options)
    settings = {} if options.strict else _extensions(endpoint, fields)
    fit = None if options.strict or not fields.has("fit") else fields.choice("fit", ("crop", "pad"), "crop")
    size = output.drawn if endpoint != "edits" else None
    request = _request(endpoint, prompt, n, size, settings)
    lacking = model.lacks.get(str(getattr(request, "kind", "")))
    if lacking:
        raise invalid(lacking, param="model", code="unsupported_by_model")
    ignored = tuple(fields.rest)
    if options.strict and ignored:
        raise invalid(
            f"Unknown parameter: '{ignored[0][:100]}'.", param=ignored[0][:100], code="unknown_parameter"
        )
    return Call(
        endpoint=endpoint,
        model=model,
        request=request,
        output=output,
        response_format="b64_json" if response_format == "b64_json" else "url",
        stream=stream,
        partial_images=partial,
        fit="pad" if fit == "pad" else "crop" if fit == "crop" else None,
        ignored=ignored,
    )


def choose_model(name: str | None, models: Sequence[Served], options: Options) -> Served:
    """The served model that a name stands for; the first one for none."""
    if not models:
        raise RequestError("the server has no model")
    if name is None:
        return models[0]
    by_name = {model.name: model for model in models}
    if name in by_name:
        return by_name[name]
    if name in options.aliases:
        found = by_name.get(options.aliases[name] or models[0].name)
        if found is not None:
            return found
    known = ", ".join([*by_name, *(alias for alias in options.aliases if alias not in by_name)])
    raise ServerError(
        404,
        f"The model `{name[:100]}` does not exist: this server has {known}.",
        param="model",
        code="model_not_found",
    )


def _prompt(prompt: str, options: Options) -> str:
    most = MAX_PROMPT
    if len(prompt) > most:
        raise invalid(
            f"Prompt must be length {most} or less. Your prompt length is {len(prompt)}. Please reduce your prompt length.",
            param="prompt",
        )
    if not prompt.strip():
        raise invalid("The prompt is empty: say what to draw.", param="prompt", code="empty_string")
    return prompt


def _streaming(endpoint: Endpoint, fields: Fields, options: Options) -> tuple[bool, int]:
    """Whether to stream, and with how many partial images."""
    if options.strict:
        return False, 0
    stream = fields.flag("stream")
    partial = fields.integer("partial_images", 0, 0, MAX_PARTIAL)
    if stream and endpoint == "variations":
        raise invalid(
            "Variations cannot be streamed: leave 'stream' out.", param="stream", code="unsupported_parameter"
        )
    return stream, partial if stream else 0


_NEWER: dict[str, tuple[str, ...]] = {
    "quality": ("standard", "auto"),
    "background": ("auto", "opaque"),
    "output_format": ("png",),
}
"""Fields of newer models -> the values that mean what this server does anyway. Others are refused."""


def _check_newer(fields: Fields, options: Options) -> None:
    if options.strict:
        return
    for name, values in _NEWER.items():
        fields.choice(name, values, values[0])
    for name in ("output_compression",):
        # Of JPEG and WebP; a PNG has none to choose.
        fields.integer(name, 100, 0, 100)


def _extensions(endpoint: Endpoint, fields: Fields) -> dict[str, Any]:
    """Seed, negative prompt and sampling settings, which OpenAI's API does not have."""
    found: dict[str, Any] = {}
    if fields.has("seed"):
        found["seed"] = fields.integer("seed", 0, 0, MAX_SEED)
    if endpoint in _TEXT_ONLY:
        found["negative"] = fields.text("negative_prompt")
    if endpoint == "variations" and fields.has("eta"):
        found["eta"] = fields.anything("eta")
    whole = fields.anything("sampling")
    if whole is not None and not isinstance(whole, dict):
        raise wrong_type("sampling", "an object", whole)
    short = {_SHORT[name]: fields.anything(name) for name in _SHORT if fields.has(name)}
    try:
        given = read_sampling(short) if short else Sampling()
        found["sampling"] = given if whole is None else given.over(read_sampling(whole))
    except RequestError as error:
        raise invalid(
            str(error), param="sampling" if whole is not None else next(iter(short), None)
        ) from error
    return found


def _request(
    endpoint: Endpoint, prompt: str | None, n: int, size: Sides | None, settings: dict[str, Any]
) -> Request:
    if endpoint == "variations":
        return Vary(n=n, size=size, **settings)
    assert prompt is not None
    if len(prompt) > LENIENT_PROMPT:
        raise invalid(f"The prompt has {len(prompt)} characters.", param="prompt")
    if endpoint == "edits":
        return Edit(prompt=prompt, n=n, **settings)
    return Generate(prompt=prompt, n=n, size=size, **settings)
