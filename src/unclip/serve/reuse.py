"""How a picture can be made again: its request as JSON, a command line, Python and curl; and what a dropped PNG records."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from unclip.config import shown
from unclip.errors import RequestError
from unclip.generate.operations import BY_KIND, read_request
from unclip.generate.request import MAX_PROMPT, compact
from unclip.images.errors import PictureError
from unclip.serve.values import presentable
from unclip.stages.sampling import FLAT_NAMES

_A1111 = re.compile(r"\s*([A-Za-z][A-Za-z0-9 _-]*):\s*(\"(?:[^\"\\]|\\.)*\"|[^,]*)(?:,|$)")
_SAMPLERS = {
    "euler": "ddim",
    "euler a": "ddpm",
    "heun": "heun",
    "ddim": "ddim",
    "dpm++ 2m": "dpmpp_2m",
    "dpm++ 2m karras": "dpmpp_2m",
    "dpm++ 2m sde": "dpmpp_2m_sde",
    "dpm++ 2m sde karras": "dpmpp_2m_sde",
}


def commands(request: Mapping[str, Any], model: str, url: str) -> dict[str, str]:
    """A request in the forms in which people run it: `json`, `cli`, `python` and `curl`.

    Pictures that it was made from are named by their roles, in capitals.
    """
    kind = str(request["kind"])
    roles = [role.upper() for role in BY_KIND[kind].sources.names[: BY_KIND[kind].sources.required]]
    text = json.dumps(request, indent=2)
    options = {key: value for key, value in request.items() if key not in ("kind", "sampling")}
    sampling = request.get("sampling")
    call = ", ".join(
        [f'"{role}.png"' for role in roles]
        + [f"{name}={value!r}" for name, value in options.items()]
        + ([f"sampling={sampling!r}"] if sampling else [])
    )
    body: dict[str, Any] = {"request": dict(request), "model": model}
    if roles:
        body["sources"] = {role.lower(): f"{role}_ID" for role in roles}
    return {
        "json": text,
        "cli": _command_line(kind, roles, options, sampling, model),
        "python": f"import unclip\n\nmodel = unclip.load({model!r})\npictures = model.{kind}({call})\n",
        "curl": (
            f"curl {shlex.quote(url + '/api/jobs')} -H 'Content-Type: application/json' "
            f"-d {shlex.quote(json.dumps(body))}"
        ),
    }


_POSITIONAL = {
    "generate": ("prompt",),
    "redraw": ("prompt",),
    "edit": ("prompt",),
    "outpaint": ("prompt",),
    "text_diff": ("target",),
    "components": ("dimensions",),
}


def _command_line(kind: str, roles: list[str], options: Mapping[str, Any], sampling: Any, model: str) -> str:
    """A command of `unclip`, whose options have the names of a request's fields and the short names of settings."""
    given = dict(options)
    files = [f"{role}.png" for role in roles]
    words = ["unclip", {"redraw": "generate", "text_diff": "text-diff"}.get(kind, kind)]
    if kind == "redraw":
        given["init"] = files.pop()
    if kind == "components" and given.pop("basis", "model") == "given":
        given["basis"] = "FOLDER"
    plain = [_text(given.pop(name)) for name in _POSITIONAL.get(kind, ()) if given.get(name)]
    # What begins with a dash would be read as an option.
    dashed = any(word.startswith("-") for word in plain)
    words += [] if dashed else files + plain
    for path in FLAT_NAMES.items():
        value = _at(sampling or {}, path[1])
        if value is not None and (path[0] != "fast" or value):
            given[path[0]] = value
    for name, value in given.items():
        option = f"--{'number' if name == 'n' else name.replace('_', '-')}"
        if value is True:
            words.append(option)
        else:
            # Height and width in requests; WIDTHxHEIGHT on the command line.
            shape = name == "size" and isinstance(value, list | tuple)
            text = "x".join(map(str, reversed(value))) if shape else _text(value)
            words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    words += ["--model", model, *(["--", *files, *plain] if dashed else [])]
    return " ".join(map(shlex.quote, words))


def _at(settings: Any, path: tuple[str, ...]) -> Any:
    """Value at a path of nested settings; None where there is none."""
    for key in path:
        if isinstance(settings, list | tuple):
            settings = settings[int(key)] if int(key) < len(settings) else None
        else:
            settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def read_picture(data: bytes) -> dict[str, Any]:
    """What a PNG records about how it was made: a request where one can be read, and warnings about what was left out.

    Raises `PictureError` for a file that is no picture, or that records nothing.
    """
    from unclip.generate.composed import is_composed, read_composed
    from unclip.generate.replay import read_replay
    from unclip.images import read_provenance, read_text

    text = read_text(data)
    if "unclip" in text:
        provenance = read_provenance(data)
        try:
            if is_composed(provenance):
                pieces = len(read_composed(provenance).composed)
                raise RequestError(
                    f"the picture is put together from {pieces} pieces, each with a request of its own: `unclip redo` makes them again"
                )
            replay = read_replay(provenance)
        except RequestError as error:
            return {
                "source": "unclip",
                "request": None,
                "provenance": presentable(provenance),
                "warnings": [presentable(str(error))],
            }
        return {
            "source": "unclip",
            "request": compact(replay.request),
            "model": replay.model,
            "digest": replay.digest,
            "provenance": presentable(provenance),
            "warnings": [],
        }
    if (parameters := text.get("parameters")) is not None:
        return _read_a1111(parameters)
    if (prompt := text.get("prompt")) is not None:
        return _read_comfy(prompt)
    raise PictureError("the picture records nothing about how it was made")


def _read_a1111(parameters: str) -> dict[str, Any]:
    """Lines of AUTOMATIC1111's web interface: prompt, `Negative prompt:`, then `Name: value` pairs."""
    lines = parameters.strip().splitlines()
    last = lines.pop() if lines and "Steps:" in lines[-1] else ""
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    found = {match[1].strip().lower(): match[2].strip().strip('"') for match in _A1111.finditer(last)}
    decoder: dict[str, Any] = {}
    warnings = []
    for name, key, kind in (("steps", "steps", int), ("cfg scale", "guidance", float)):
        try:
            if name in found:
                decoder[key] = kind(found[name])
        except ValueError:
            warnings.append(f"{name} {shown(found[name])} is no number and was left out")
    sampler = found.get("sampler", "").lower()
    if sampler in _SAMPLERS:
        decoder["sampler"] = _SAMPLERS[sampler]
    elif sampler:
        warnings.append(f"the sampler {found['sampler']!r} is not known here and was left out")
    if "model" in found:
        warnings.append(f"the picture was made by another model, {found['model']!r}: it will look different")
    if not prompt.strip():
        raise PictureError("the picture records settings, but no prompt")
    made: dict[str, Any] = {"kind": "generate", "prompt": _cut(prompt.strip(), "the prompt", warnings)}
    # Each setting by itself, so that one that is of no use here loses none of the others.
    settings: list[tuple[str, dict[str, Any]]] = []
    if negative.strip():
        settings.append(
            ("the negative prompt", {"negative": _cut(negative.strip(), "the negative prompt", warnings)})
        )
    # -1 stands for a seed that was drawn.
    if found.get("seed", "-1") not in ("", "-1"):
        settings.append(("the seed", {"seed": _whole(found["seed"])}))
    for key in list(decoder):
        settings.append((f"the setting {key}", {"sampling": {"decoder": {key: decoder[key]}}}))
    for what, setting in settings:
        trial = {**made, **setting}
        if "sampling" in setting and "sampling" in made:
            trial["sampling"] = {"decoder": {**made["sampling"]["decoder"], **setting["sampling"]["decoder"]}}
        try:
            read_request(trial)
        except RequestError as error:
            warnings.append(f"{what} was left out: {error}")
        else:
            made = trial
    return {
        "source": "a1111",
        "request": compact(read_request(made)),
        "provenance": {"parameters": parameters},
        "warnings": warnings,
    }


def _whole(text: str) -> Any:
    """The whole number that a text is; the text where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 30 else text


def _cut(text: str, what: str, warnings: list[str]) -> str:
    if len(text) > MAX_PROMPT:
        warnings.append(f"{what} has {len(text)} characters: the first {MAX_PROMPT} were taken")
    return text[:MAX_PROMPT]


def _read_comfy(text: str) -> dict[str, Any]:
    """ComfyUI's graph: the longest text is taken for the prompt."""
    try:
        graph = json.loads(text)
        nodes = [node for node in graph.values() if isinstance(node, dict)]
    except (ValueError, AttributeError, RecursionError):
        raise PictureError("the picture's record of how it was made is damaged") from None
    texts = [
        value["text"]
        for node in nodes
        if isinstance(value := node.get("inputs"), dict) and isinstance(value.get("text"), str)
    ]
    if not any(one.strip() for one in texts):
        raise PictureError("the picture was made by a graph without a prompt")
    warnings = ["the picture was made by a graph of nodes: only its longest text was taken, as the prompt"]
    prompt = _cut(max(texts, key=len), "the prompt", warnings)
    request: dict[str, Any] = {"kind": "generate", "prompt": prompt}
    return {
        "source": "comfyui",
        "request": compact(read_request(request)),
        "provenance": {"prompt": presentable(graph)},
        "warnings": warnings,
    }
