"""Configs in public formats, read so that a switch we do not have is an error and never a wrong picture."""

from collections.abc import Mapping
from typing import Any

from unclip.errors import ModelError


class Options:
    """A format's config: `take` what varies, `demand` what must be as we have it."""

    def __init__(self, data: Mapping[str, Any], where: str):
        self.data, self.where = data, where

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        """The value of an option, `default` where it is absent or null. Raises `ModelError` for one of another type."""
        value = self.data.get(name)
        value = default if value is None else value
        if value is None:
            raise ModelError(f"{self.where}: the option {name!r} is missing")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ModelError(f"{self.where}: {name} is {value!r}, expected {kind.__name__}")
        return value

    def demand(self, **wanted: Any) -> None:
        """Raise `ModelError` naming the first option that is there with another value than wanted."""
        for name, value in wanted.items():
            if name in self.data and self.data[name] != value:
                raise ModelError(
                    f"{self.where}: {name} is {self.data[name]!r}; this architecture is only known with {value!r}"
                )

    def require(self, **wanted: Any) -> None:
        """Like `demand`, for options that must be there."""
        for name, value in wanted.items():
            if self.data.get(name) != value:
                raise ModelError(
                    f"{self.where}: {name} is {self.data.get(name)!r}; this architecture is only known with {value!r}"
                )

    def equal(self, name: str, value: Any, wanted: Any) -> None:
        """Raise `ModelError` unless two values agree, such as a width that two configs tell."""
        if value != wanted:
            raise ModelError(f"{self.where}: {name} is {value!r}, the other parts have {wanted!r}")
