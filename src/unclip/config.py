"""Strict configuration: frozen keyword-only dataclasses to and from JSON; an unknown key is an error.

A field that may hold one of several dataclasses is told apart by the key `kind`: each alternative
declares `kind: Literal["..."] = "..."`, which is written to the JSON and checked when it is read.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that does not fit its dataclass; the message names the key and the remedy."""


def to_dict(config: Any) -> Any:
    """A JSON-able copy of `config`: dataclasses become dicts, tuples become lists."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(value) for value in config]
    return config


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """Build `cls` from plain JSON data.

    Raises `ConfigError` for an unknown key, a missing key or a value of another type, and names it.
    """
    where = where or cls.__name__
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected an object with keys, got {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; it has {', '.join(fields)}")
    missing = [name for name, field in fields.items() if name not in data and _required(field)]
    if missing:
        raise ConfigError(f"{where}: the key {missing[0]!r} is missing")
    values = {name: _read(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    return cls(**values)


def override(config: T, assignments: Sequence[str]) -> T:
    """A copy of `config` with `a.b=value` assignments applied, each value read as JSON or else as text.

    Raises `ConfigError` for a path that does not exist or a value that does not fit.
    """
    data = to_dict(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ConfigError(f"{assignment!r} is not of the form key.subkey=value")
        *parents, last = path.split(".")
        node = data
        for parent in parents:
            if not isinstance(node, dict) or parent not in node:
                raise ConfigError(f"{path}: there is no {parent!r}; choose from {_keys(node)}")
            node = node[parent]
        if not isinstance(node, dict) or last not in node:
            raise ConfigError(f"{path}: there is no {last!r}; choose from {_keys(node)}")
        try:
            node[last] = json.loads(text)
        except json.JSONDecodeError:
            node[last] = text
    return from_dict(type(config), data)


def _keys(node: Any) -> str:
    return ", ".join(node) if isinstance(node, dict) else "nothing: it is a plain value"


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected an object, got {value!r}")
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value


def _read_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    candidates = [argument for argument in arguments if argument is not type(None)]
    kinds = {kind: cls for cls in candidates if dataclasses.is_dataclass(cls) for kind in _kind_of(cls)}
    if kinds and isinstance(value, Mapping):
        kind = value.get("kind")
        if kind in kinds:
            return from_dict(typing.cast(type, kinds[kind]), value, where)
        if len(candidates) > 1:
            raise ConfigError(f"{where}.kind: {kind!r} is not one of {', '.join(map(repr, kinds))}")
    failures = []
    for candidate in candidates:
        try:
            return _read(candidate, value, where)
        except ConfigError as error:
            failures.append(str(error))
    raise ConfigError(failures[0])


def _kind_of(cls: Any) -> tuple[str, ...]:
    return get_args(typing.get_type_hints(cls).get("kind", Literal[""]))


def _read_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: expected a list, got {value!r}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_read(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if len(value) != len(arguments):
        raise ConfigError(f"{where}: expected {len(arguments)} values, got {len(value)}")
    return tuple(
        _read(hint, item, f"{where}[{index}]") for index, (hint, item) in enumerate(zip(arguments, value))
    )
