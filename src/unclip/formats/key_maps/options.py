"""Strict reader of configs in public formats: an unsupported option is an error, never a wrong picture."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unclip.config import shown
from unclip.errors import ModelError

Value = TypeVar("Value")

MOST = 2**31 - 1
"""The largest whole number of a config."""
_FROM_ZERO = frozenset(
    {"steps_offset", "eos_token_id", "pad_token_id", "additional_embeddings", "clip_extra_context_tokens"}
    | {"num_text_embeds", "num_time_embeds", "num_image_embeds"}
)


@dataclass(frozen=True)
class Only:
    """Values of an option that the networks here compute; `default` is the reference's own, for configs without it."""

    values: tuple[Any, ...]
    default: Any

    def accepts(self, value: Any) -> bool:
        """Whether a value, or a list that repeats one for each level, is among them."""
        if any(_same(value, one) for one in self.values):
            return True
        return (
            isinstance(value, list)
            and bool(value)
            and all(_is_scalar(one) and self.accepts(one) for one in value)
        )


def only(*values: Any, default: Any = ...) -> Only:
    """`Only` of some values, of which the first is the reference's default unless another is given."""
    return Only(values, values[0] if default is ... else default)


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, list | dict)


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and one == other


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Every option of a class whose configs are read. Tests compare the names with those of the installed class."""

    name: str
    honoured: frozenset[str]
    """Options that the reader takes."""
    fixed: Mapping[str, Only] = field(default_factory=dict[str, Only])
    """Options with values that the networks here compute; any other is refused."""
    inert: frozenset[str] = frozenset()
    """Options without effect on what the loaded weights give: for training, or for branches that `fixed` excludes."""
    closed: bool = True
    """Whether a name that is not listed is refused. Configs of transformers carry notes of all kinds, which it ignores."""

    @property
    def options(self) -> frozenset[str]:
        """All names."""
        return self.honoured.union(self.fixed, self.inert)


class Options:
    """A format's config: `take` options that vary, `demand` the value of those that may not."""

    def __init__(self, data: Mapping[str, Any], where: str):
        self.data, self.where = data, where

    def check(self, reference: Reference) -> None:
        """Raise `ModelError` naming the first option whose value the networks here do not compute."""
        for name, rule in reference.fixed.items():
            value = self.data.get(name, rule.default)
            if not rule.accepts(value):
                known = " or ".join(repr(one) for one in rule.values)
                absent = "" if name in self.data else f", {reference.name}'s default"
                raise ModelError(
                    f"{self.where}: {name} is {shown(value)}{absent}; this architecture is only known with {known}"
                )
        for name in self.data if reference.closed else ():
            if not name.startswith("_") and name not in reference.options:
                raise ModelError(
                    f"{self.where}: the option {name!r} of {reference.name} is not known to this version of unclip"
                )

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        """Value of an option, `default` if it is absent or null.

        Raises `ModelError` for another type, and for a number that counts or measures nothing: networks and schedules have
        sizes from 1, and finite factors above 0.
        """
        value = self.data.get(name)
        value = default if value is None else value
        if value is None:
            raise ModelError(f"{self.where}: the option {name!r} is missing")
        if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST:
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ModelError(f"{self.where}: {name} is {shown(value)}, expected {kind.__name__}")
        if kind is float and not 0 < value < math.inf:
            raise ModelError(f"{self.where}: {name} is {value}, expected a finite number above 0")
        least = 0 if name in _FROM_ZERO else 1
        if kind is int and not least <= value <= MOST:
            raise ModelError(
                f"{self.where}: {name} is {shown(value)}, expected a whole number from {least} to {MOST}"
            )
        if kind is list and isinstance(value, list):
            self._check_list(name, value)
        return value

    def _check_list(self, name: str, values: list[Any]) -> None:
        """Lists describe levels: names of blocks, or widths. Raises `ModelError`, naming the first that is neither."""
        text = name.endswith("_types")
        for one in values:
            good = isinstance(one, str) if text else type(one) is int and 1 <= one <= MOST
            if not good:
                what = "names of blocks" if text else f"whole numbers from 1 to {MOST}"
                raise ModelError(f"{self.where}: {name} holds {shown(one)}, expected {what}")
        if not values:
            raise ModelError(f"{self.where}: {name} is empty; it has an entry for each level")

    def one_of(self, name: str, values: Mapping[str, Value], default: str) -> Value:
        """What `values` has for an option, for `default` if it is absent or null. Raises `ModelError` for another value."""
        given = self.take(name, str, default)
        if given not in values:
            raise ModelError(
                f"{self.where}: {name} is {shown(given)}; it is only supported as {' or '.join(map(repr, values))}"
            )
        return values[given]

    def demand(self, **needed: Any) -> None:
        """Raise `ModelError` naming the first option that is present with another value."""
        for name, value in needed.items():
            if name in self.data and self.data[name] != value:
                raise ModelError(
                    f"{self.where}: {name} is {shown(self.data[name])}; this architecture is only known with {value!r}"
                )

    def require(self, **needed: Any) -> None:
        """`demand` for options that must be present."""
        for name, value in needed.items():
            if self.data.get(name) != value:
                raise ModelError(
                    f"{self.where}: {name} is {shown(self.data.get(name))}; this architecture is only known with {value!r}"
                )

    def equal(self, name: str, value: Any, other: Any, of: str) -> None:
        """Raise `ModelError` unless two values agree; `of` names the second, such as "the decoder's width"."""
        if value != other:
            raise ModelError(
                f"{self.where}: {name} is {shown(value)}, {of} is {shown(other)}: they must agree"
            )
