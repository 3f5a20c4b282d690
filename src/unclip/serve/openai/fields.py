"""Fields of a body, JSON or form, read one by one with OpenAI's words for what does not fit."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from unclip.config import shown
from unclip.serve.guard.errors import ServerError, invalid

_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "a boolean", dict: "an object"}


class Fields:
    """A body's fields. Each reader takes a field out; `rest` are those that nobody read. null is as good as absent."""

    def __init__(self, given: Mapping[str, Any], *, form: bool = False):
        self._given = {name: value for name, value in given.items() if value is not None}
        self._form = form

    @property
    def rest(self) -> list[str]:
        """Names of the fields that were not read."""
        return sorted(self._given)

    def has(self, name: str) -> bool:
        """Whether a field is there and was not read yet."""
        return name in self._given

    def text(self, name: str) -> str | None:
        """A string. One with NUL is refused: PostgreSQL cannot keep it."""
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise wrong_type(name, "a string", value)
        if "\0" in value:
            raise invalid(f"Invalid '{name}': the text holds the character NUL.", param=name)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid(f"Invalid '{name}': the text is not valid Unicode.", param=name) from None
        return value

    def required(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if value is None:
            raise missing(name)
        return value

    def choice(self, name: str, options: Sequence[str], default: str) -> str:
        """One of `options`."""
        value = self.text(name)
        if value is None:
            return default
        if value not in options:
            raise bad_choice(name, value, options)
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """An integer from `low` to `high`."""
        value = self._parsed(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong_type(name, "an integer", value)
        if not low <= value <= high:
            side, sign, bound = ("below minimum", ">=", low) if value < low else ("above maximum", "<=", high)
            raise invalid(
                f"Invalid '{name}': integer {side} value. Expected a value {sign} {bound}, but got {shown(value)} instead.",
                param=name,
                code=f"integer_{side.replace(' ', '_')}_value",
            )
        return value

    def flag(self, name: str) -> bool:
        """A boolean; absent is False."""
        value = self._parsed(name)
        if value is None:
            return False
        if isinstance(value, str) and self._form and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        if not isinstance(value, bool):
            raise wrong_type(name, "a boolean", value)
        return value

    def anything(self, name: str) -> Any:
        """A value of any type; in a form, text that is JSON stands for its value."""
        return self._parsed(name)

    def _take(self, name: str) -> Any:
        return self._given.pop(name, None)

    def _parsed(self, name: str) -> Any:
        value = self._take(name)
        if not (self._form and isinstance(value, str)):
            return value
        return parse_json(value, value)


def parse_json(text: str | bytes, default: Any) -> Any:
    """Value of a JSON text; `default` where it is none: damaged, nested too deep, or with numbers of thousands of digits."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return default


def wrong_type(name: str, wanted: str, value: Any) -> ServerError:
    """OpenAI's answer to a value of another type."""
    kind = "an array" if isinstance(value, list | tuple) else _NAMES.get(type(value), "another type")
    return invalid(
        f"Invalid type for '{name}': expected {wanted}, but got {kind} instead.",
        param=name,
        code="invalid_type",
    )


def missing(name: str) -> ServerError:
    """OpenAI's answer where a field is absent."""
    return invalid(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def bad_choice(name: str, value: str, options: Sequence[str]) -> ServerError:
    """OpenAI's answer to a value that is none of the choices."""
    *first, last = [f"'{option}'" for option in options]
    listed = f"{', '.join(first)} and {last}" if first else last
    return invalid(
        f"Invalid value: {shown(value)}. Supported values are: {listed}.", param=name, code="invalid_value"
    )
