"""Command-line options made from the fields of a request and from the sampling settings: names, types, ranges, help."""

import argparse
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal, Union, get_args, get_origin

from unclip.cli import options
from unclip.config import Param, parameters
from unclip.generate.request import Request
from unclip.stages import sampling as settings
from unclip.stages.extent import Sides

# Option of each field whose name alone would not do, with the names of version 0.1 behind it.
FLAGS = {
    "n": ("-n", "--number"),
    "frames": ("-n", "--frames", "--number"),
    "baseline": ("--baseline", "--source"),
}
NOT_OPTIONS = ("kind", "seed", "sampling")
STAGES = {"prior": "prior", "upsampler": "first upsampler", "second": "further upsamplers"}


def add_fields(parser: argparse.ArgumentParser, request: type[Request], positional: tuple[str, ...]) -> None:
    """Add an option for every field of a request that is not given otherwise; absent options are None."""
    hints, described = typing.get_type_hints(request), parameters(request)
    for field in fields(request):
        if field.name in NOT_OPTIONS or field.name in positional:
            continue
        param = described.get(field.name, Param(field.name))
        default = None if field.default in (None, MISSING, "") else field.default
        _add(
            parser,
            FLAGS.get(field.name, (f"--{field.name.replace('_', '-')}",)),
            hints[field.name],
            param,
            dest=field.name,
            help=param.help,
            default=default,
        )


def add_sampling(group: argparse._ArgumentGroup, stages: Sequence[str]) -> None:
    """Add the options of the sampling settings of some stages (`Request.stages`) under their short names."""
    for name, hint, param in _settings():
        if settings.FLAT_NAMES[name][0] not in (*stages, "random", "fast"):
            continue
        stage = STAGES.get(name.partition("_")[0], "decoder")
        of_stage = f" of the {stage}" if name.endswith(("steps", "sampler")) else ""
        _add(group, (f"--{name.replace('_', '-')}",), hint, param, dest=name, help=param.help + of_stage)


def given_fields(request: type[Request], arguments: argparse.Namespace) -> dict[str, Any]:
    """Values of the request's fields that the command line gives."""
    names = [field.name for field in fields(request) if field.name not in NOT_OPTIONS]
    return {name: value for name in names if (value := getattr(arguments, name, None)) is not None}


def given_sampling(arguments: argparse.Namespace) -> settings.Sampling:
    """Sampling settings that the command line gives. Raises `RequestError` for a value out of range."""
    return settings.sampling(**{name: getattr(arguments, name, None) for name in settings.FLAT_NAMES})


def _settings() -> Iterator[tuple[str, Any, Param]]:
    homes = {
        "prior": settings.PriorSampling,
        "decoder": settings.DecoderSampling,
        "upsamplers": settings.UpsamplerSampling,
    }
    for name, path in settings.FLAT_NAMES.items():
        home = homes.get(path[0], settings.Sampling)
        yield name, typing.get_type_hints(home)[path[-1]], parameters(home)[path[-1]]


def _add(
    parser: "argparse.ArgumentParser | argparse._ArgumentGroup",
    flags: tuple[str, ...],
    hint: Any,
    param: Param,
    *,
    dest: str,
    help: str,
    default: Any = None,
) -> None:
    inner, ending = _without_none(hint), "" if default is None else f" (default: {default})"
    names: tuple[str, ...] = param.choices or (get_args(inner) if get_origin(inner) is Literal else ())
    if inner is bool:
        parser.add_argument(*flags, dest=dest, action="store_true", default=None, help=help)
    elif names:
        parser.add_argument(
            *flags,
            dest=dest,
            choices=(*names, *param.aliases),
            metavar="NAME",
            help=f"{help} ({', '.join(names)}){ending}",
        )
    else:
        parse, metavar = _parser_of(inner)
        parser.add_argument(
            *flags, dest=dest, type=parse, metavar=param.metavar or metavar, help=help + ending
        )


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        inner = tuple(one for one in get_args(hint) if one is not type(None))
        return Sides if inner == get_args(Sides) else inner[0]
    return hint


def _parser_of(hint: Any) -> tuple[Callable[[str], Any], str]:
    if get_origin(hint) is tuple:
        item, *others = get_args(hint)
        count = None if others == [Ellipsis] else 1 + len(others)
        return options.listed(options.whole if item is int else options.real, count), "X,X,..."
    if hint is int:
        return options.whole, "N"
    if hint == Sides:
        return options.size, "N|WxH"
    return (options.real, "X") if hint is float else (str, "TEXT")
