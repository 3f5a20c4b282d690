"""Strict reader of configs in public formats: an unsupported option is an error, never a wrong picture."""

from collections.abc import Mapping
from typing import Any

from unclip.errors import ModelError


class Options:
    """A format's config: `take` options that vary, `demand` the value of those that may not."""

    def __init__(self, data: Mapping[str, Any], where: str):
        self.data, self.where = data, where

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        """Value of an option, `default` if it is absent or null. Raises `ModelError` for another type."""
        value = self.data.get(name)
        value = default if value is None else value
        if value is None:
            raise ModelError(f"{self.where}: the option {name!r} is missing")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ModelError(f"{self.where}: {name} is {value!r}, expected {kind.__name__}")
        return value

    def demand(self, **needed: Any) -> None:
        """Raise `ModelError` naming the first option that is present with another value."""
        for name, value in needed.items():
            if name in self.data and self.data[name] != value:
                raise ModelError(
                    f"{self.where}: {name} is {self.data[name]!r}; this architecture is only known with {value!r}"
                )

    def require(self, **needed: Any) -> None:
        """`demand` for options that must be present."""
        for name, value in needed.items():
            if self.data.get(name) != value:
                raise ModelError(
                    f"{self.where}: {name} is {self.data.get(name)!r}; this architecture is only known with {value!r}"
                )

    def equal(self, name: str, value: Any, other: Any) -> None:
        """Raise `ModelError` unless two values agree, such as a width that two configs state."""
        if value != other:
            raise ModelError(f"{self.where}: {name} is {value!r}, the other parts have {other!r}")
