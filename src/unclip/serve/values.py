"""Values of JSON that cannot be kept or sent: numbers that are not finite, halves of letters, zero bytes."""

import math
from typing import Any

from unclip.config import shown
from unclip.errors import RequestError


def check_values(value: Any, name: str) -> None:
    """Raise `RequestError`, naming the key, for a value that a database or an answer could not hold."""
    waiting = [(name, value)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            for key in value:
                _check_text(key, f"a key of {name}")
            waiting += [(f"{name}.{key}", item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{name}[{index}]", item) for index, item in enumerate(value)]
        elif isinstance(value, str):
            _check_text(value, name)
        elif isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{name} is {value}: give a finite number")


def _check_text(text: str, name: str) -> None:
    wrong = next((letter for letter in text if letter == "\0" or "\ud800" <= letter <= "\udfff"), None)
    if wrong == "\0":
        raise RequestError(f"{name} holds a zero byte ({shown(text)}), which is no text: leave it out")
    if wrong is not None:
        raise RequestError(f"{name} holds {wrong!r}, which is half of a pair and no text: give text in UTF-8")


def presentable(value: Any) -> Any:
    """JSON of a foreign file as an answer can hold it: None for numbers that are not finite, escapes for halves of letters."""
    if isinstance(value, dict):
        return {presentable(key): presentable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [presentable(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value
