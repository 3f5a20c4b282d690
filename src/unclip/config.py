"""Strict configuration: frozen keyword-only dataclasses to and from JSON; an unknown key is an error.

A field that may hold one of several dataclasses is read by the key `kind`: each alternative
declares `kind: Literal["..."] = "..."`, which is written to the JSON and checked when it is read.
"""

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar("T")

MAX_SHOWN = 120
"""Characters of a value in a message."""
MAX_ARRAY = 100_000
"""Elements of a numpy or torch array that stands for a list."""


class ConfigError(ValueError):
    """A configuration that does not fit its dataclass; the message names the key and the remedy."""


@dataclasses.dataclass(frozen=True)
class Param:
    """Description and range of a field, for help texts, validation (`check`) and JSON Schema.

    Used as `steps: Annotated[int, Param("sampler steps", ge=1, le=1000)]`. `aliases` are further names that are
    accepted for a choice and not shown.
    """

    help: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    metavar: str | None = None

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value of the right type; None if nothing is."""
        if isinstance(value, float) and not math.isfinite(value):
            return "give a finite number"
        if isinstance(value, int | float) and not isinstance(value, bool):
            low = (self.ge is not None and value < self.ge) or (self.gt is not None and value <= self.gt)
            if low or (self.le is not None and value > self.le):
                return f"give {self.range}"
        if self.choices and isinstance(value, str) and value not in (*self.choices, *self.aliases):
            return f"choose from {', '.join(self.choices)}"
        return None

    @property
    def range(self) -> str:
        """The range in words, such as "a number from 1 to 1000"."""
        if self.ge is not None and self.le is not None:
            return f"a number from {self.ge:g} to {self.le:g}"
        low = (
            f"{self.ge:g} or more"
            if self.ge is not None
            else f"more than {self.gt:g}"
            if self.gt is not None
            else ""
        )
        return " and ".join(filter(None, [low, f"at most {self.le:g}" if self.le is not None else ""]))

    def __get_pydantic_json_schema__(
        self, core: Any, handler: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        """Adds description, range and choices where pydantic generates a JSON Schema (`unclip.generate.schema`)."""
        schema = handler(core)
        names = {"minimum": self.ge, "exclusiveMinimum": self.gt, "maximum": self.le}
        limits: dict[str, Any] = {name: value for name, value in names.items() if value is not None}
        if self.choices:
            limits["enum"] = list(self.choices)
        for part in schema.get("anyOf", [schema]):
            for item in part.get("prefixItems", [part]):
                if item.get("type") != "null":
                    item.update(limits)
        return {**schema, "description": self.help}


def parameters(cls: type) -> dict[str, Param]:
    """The `Param` of every field that has one."""
    return {
        name: param
        for name, hint in typing.get_type_hints(cls, include_extras=True).items()
        if (param := _param_of(hint)) is not None
    }


def check(config: Any, error: type[ValueError] = ConfigError) -> None:
    """Check a frozen dataclass against its annotations: types, ranges and choices. For use in `__post_init__`.

    An int in a float field becomes a float, a list in a tuple field a tuple, numbers and one-dimensional arrays of numpy
    and torch Python's own. Raises `error` naming field and remedy.
    """
    cls = type(config)
    for name in _cached_hints(cls):
        value = getattr(config, name)
        read = read_field(cls, name, value, error=error)
        if read is not value:
            object.__setattr__(config, name, read)


def read_field(
    cls: type, name: str, value: Any, where: str = "", *, error: type[ValueError] = ConfigError
) -> Any:
    """A value for a field of a dataclass, checked like `check`; errors call it `where`, by default `name`."""
    where = where or name
    read = read_value(_cached_hints(cls)[name], value, where, error=error)
    param = _cached_parameters(cls).get(name)
    if param is None or read is None:
        return read
    for item in read if isinstance(read, tuple) else (read,):
        if (problem := param.problem(item)) is not None:
            raise error(f"{where} is {shown(item)}: {problem}")
    return read


def read_value(hint: Any, value: Any, where: str, *, error: type[ValueError] = ConfigError) -> Any:
    """A value of a type, such as `int | None`, made of Python's own numbers and tuples. Raises `error`, naming `where`."""
    try:
        return _read(hint, value, where)
    except ConfigError as wrong:
        raise error(str(wrong)) from None


@functools.cache
def _cached_parameters(cls: type) -> dict[str, Param]:
    return parameters(cls)


@functools.cache
def _cached_hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _param_of(hint: Any) -> Param | None:
    if get_origin(hint) is Annotated:
        return next((extra for extra in get_args(hint)[1:] if isinstance(extra, Param)), None)
    return None


def to_dict(config: Any) -> Any:
    """A JSON-able copy of `config`: dataclasses become dicts, tuples become lists."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(value) for value in config]
    return config


def from_dict(cls: type[T], data: Any, where: str = "", *, error: type[ValueError] | None = None) -> T:
    """Build `cls` from plain JSON data.

    Raises `ConfigError`, or `error`, for an unknown key, a missing key or a value of another type, and names it.
    """
    if error is not None:
        try:
            return from_dict(cls, data, where)
        except ConfigError as wrong:
            raise error(str(wrong)) from None
    where = where or cls.__name__
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected an object with keys, got {shown(data)}")
    hints = _cached_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    unknown = sorted((key for key in data if key not in fields), key=str)
    if unknown:
        raise ConfigError(f"{where}: unknown key {shown(unknown[0])}; it has {', '.join(fields)}")
    missing = [name for name, field in fields.items() if name not in data and _required(field)]
    if missing:
        raise ConfigError(f"{where}: the key {missing[0]!r} is missing")
    values = {name: _read(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    try:
        return cls(**values)
    except ArithmeticError as wrong:
        # A size of 0, or one that no number type holds.
        raise ConfigError(f"{where}: its numbers describe nothing ({wrong})") from wrong


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
    value = _plain(value)
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is Literal:
        if not isinstance(value, str | int | None) or value not in arguments:
            raise ConfigError(f"{where}: {shown(value)} is not one of {', '.join(map(repr, arguments))}")
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        return from_dict(typing.cast(type, hint), value, where)
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected an object, got {shown(value)}")
        if wrong := [key for key in value if not isinstance(key, arguments[0])]:
            raise ConfigError(f"{where}: the key {shown(wrong[0])} is not of type {arguments[0].__name__}")
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where}: {shown(value)} is too large for a float") from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, got {shown(value)}")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{where} is {value}: give a finite number")
    return value


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's own, and their arrays of one dimension as lists; the rest as it is."""
    if type(value).__module__.partition(".")[0] not in ("numpy", "torch") or not hasattr(value, "tolist"):
        return value
    shape = tuple(getattr(value, "shape", ()))
    return value.tolist() if len(shape) < 2 and math.prod(shape) <= MAX_ARRAY else value


def shown(value: Any) -> str:
    """A value for a message: its `repr`, cut where it is long, or its type where it has none."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # Integers of thousands of digits, and lists nested as deep.
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _read_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    candidates = [argument for argument in arguments if argument is not type(None)]
    kinds = {kind: cls for cls in candidates if dataclasses.is_dataclass(cls) for kind in _kind_of(cls)}
    if any(dataclasses.is_dataclass(cls) and isinstance(value, typing.cast(type, cls)) for cls in candidates):
        return value
    if kinds and isinstance(value, Mapping):
        kind = value.get("kind")
        if isinstance(kind, str) and kind in kinds:
            return from_dict(typing.cast(type, kinds[kind]), value, where)
        if len(candidates) > 1:
            raise ConfigError(f"{where}.kind: {shown(kind)} is not one of {', '.join(map(repr, kinds))}")
    failures = []
    for candidate in candidates:
        try:
            return _read(candidate, value, where)
        except ConfigError as error:
            failures.append(str(error))
    # Of a list, what is wrong with its items, not that it is one.
    raise ConfigError(failures[-1] if isinstance(_plain(value), list | tuple) else failures[0])


def _kind_of(cls: Any) -> tuple[str, ...]:
    return get_args(typing.get_type_hints(cls).get("kind", Literal[""]))


def _read_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: expected a list, got {shown(value)}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_read(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if len(value) != len(arguments):
        raise ConfigError(f"{where}: expected {len(arguments)} values, got {len(value)}")
    return tuple(
        _read(hint, item, f"{where}[{index}]") for index, (hint, item) in enumerate(zip(arguments, value))
    )
