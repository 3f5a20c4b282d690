"""Key tables: translate the weights of a public format ("theirs") to those of a network here ("ours"), and back.

A row pairs one of our names with the format's names that hold the same numbers, and with their layout. Names are
templates: `{n}` stands for a number and `{p}` for `weight` or `bias`. A table accounts for every weight; unknown, missing
and duplicate ones are errors that name them.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from unclip.errors import ModelError


class Form(NamedTuple):
    """Layout of one weight here in the public format: `join` makes it from theirs, `split` inverts that."""

    join: Callable[[list[Tensor]], Tensor]
    split: Callable[[Tensor], list[Tensor]]


SAME = Form(lambda parts: parts[0], lambda ours: [ours])
TRANSPOSED = Form(lambda parts: parts[0].T, lambda ours: [ours.T])


def stacked(count: int) -> Form:
    """Ours is the concatenation of `count` of theirs along the rows."""
    return Form(lambda parts: torch.cat(parts), lambda ours: list(ours.chunk(count)))


def with_leading(ones: int) -> Form:
    """Theirs has that many leading axes of length 1."""
    return Form(
        lambda parts: parts[0].reshape(parts[0].shape[ones:]),
        lambda ours: [ours.reshape(*(1,) * ones, *ours.shape)],
    )


def interleaved(count: int, block: int, *, convolution: bool = False) -> Form:
    """Fused attention: rows are ordered (head, one of `count`, `block`) in theirs, (one of `count`, head, `block`) in ours.

    With `convolution`, theirs are weights of 1-wide convolutions: matrices with one more axis.
    """

    def join(parts: list[Tensor]) -> Tensor:
        theirs = parts[0].squeeze(-1) if convolution and parts[0].ndim == 3 else parts[0]
        return rearrange(theirs, "(a n c) ... -> (n a c) ...", n=count, c=block)

    def split(ours: Tensor) -> list[Tensor]:
        theirs = rearrange(ours, "(n a c) ... -> (a n c) ...", n=count, c=block)
        return [theirs.unsqueeze(-1) if convolution and theirs.ndim == 2 else theirs]

    return Form(join, split)


# Ours is a matrix, theirs a 1-wide convolution; biases are the same.
CONVOLUTION = Form(
    lambda parts: parts[0].squeeze(-1) if parts[0].ndim == 3 else parts[0],
    lambda ours: [ours.unsqueeze(-1) if ours.ndim == 2 else ours],
)


def channel_major(tokens: int) -> Form:
    """Rows are ordered (channel, token) in theirs, (token, channel) in ours."""
    return Form(
        lambda parts: rearrange(parts[0], "(c k) ... -> (k c) ...", k=tokens),
        lambda ours: [rearrange(ours, "(k c) ... -> (c k) ...", k=tokens)],
    )


def absent(value: float) -> Form:
    """The format has no such weight; ours is filled with `value`."""
    return Form(lambda parts: torch.tensor(value), lambda ours: [])


@dataclass(frozen=True)
class Row:
    """One weight here, and the weights of the public format that it is made of, in order."""

    ours: str
    theirs: tuple[str, ...]
    form: Form = SAME


def row(ours: str, *theirs: str, form: Form = SAME) -> Row:
    """`Row` with `theirs` as arguments."""
    return Row(ours, theirs, form)


def within(ours: str, theirs: str, rows: Iterable[Row]) -> list[Row]:
    """The same rows with prefixes, for a network inside a larger one."""
    return [Row(ours + one.ours, tuple(theirs + name for name in one.theirs), one.form) for one in rows]


def renamed(pairs: Mapping[str, str], form: Form = SAME) -> list[Row]:
    """A row for the weight and bias of each pair of modules, ours -> theirs."""
    return [Row(f"{ours}.{{p}}", (f"{theirs}.{{p}}",), form) for ours, theirs in pairs.items()]


_FIELDS = {"p": "weight|bias"}
_NUMBER = r"\d+"


def _pattern(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", template)
    text = ""
    for index, piece in enumerate(pieces):
        text += f"(?P<{piece}>{_FIELDS.get(piece, _NUMBER)})" if index % 2 else re.escape(piece)
    return re.compile(text)


@dataclass(frozen=True)
class Table:
    """Rows of a format for one network. `ignored` are patterns of their names that are skipped.

    `spellings` are patterns of other spellings of their names, and what they stand for in the rows, as `re.sub` takes them;
    names are matched as a whole.
    """

    rows: Sequence[Row]
    ignored: Sequence[str] = ()
    spellings: Sequence[tuple[str, str]] = ()
    _patterns: list[re.Pattern[str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_patterns", [_pattern(one.ours) for one in self.rows])

    def find(self, ours: str) -> Row:
        """Row of one of our weights, its templates filled in. Raises `ValueError` unless there is exactly one."""
        found = [
            (one, match)
            for one, pattern in zip(self.rows, self._patterns)
            if (match := pattern.fullmatch(ours))
        ]
        if len(found) != 1:
            raise ValueError(f"the table has {len(found)} rows for the weight {ours!r}: it needs exactly one")
        one, match = found[0]
        return Row(ours, tuple(name.format(**match.groupdict()) for name in one.theirs), one.form)

    def plan(self, ours: Mapping[str, Tensor]) -> dict[str, Row]:
        """Row of each of our weights. Raises `ValueError` if two of them are made of one public weight."""
        plan = {name: self.find(name) for name in ours}
        claimed: dict[str, str] = {}
        for name, one in plan.items():
            for key in one.theirs:
                if key in claimed:
                    raise ValueError(f"the table makes both {claimed[key]!r} and {name!r} of {key!r}")
                claimed[key] = name
        return plan

    def to_theirs(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our weights in the format's names and layout; tensors on the meta device give shapes alone."""
        theirs: dict[str, Tensor] = {}
        for name, one in self.plan(ours).items():
            theirs |= zip(one.theirs, one.form.split(ours[name]), strict=True)
        return theirs

    def to_ours(
        self,
        ours: Mapping[str, Tensor],
        keys: Collection[str],
        read: Callable[[str], Tensor],
        where: str,
        only: str = "",
    ) -> Iterator[tuple[str, Tensor]]:
        """Name and value of each of our weights whose name begins with `only`, read one at a time.

        `ours` has a tensor of the right shape for each of our names, `keys` are the names in the files, `read` returns
        the tensor of one. Raises `ModelError` naming `where` and the first key that is unknown, missing, or of another
        shape than the config needs; names are checked before anything is read.
        """
        plan = self.plan(ours)
        spelled = self._spelled(keys, where)
        keys = spelled.keys()
        needed = [key for one in plan.values() for key in one.theirs]
        ignored = [re.compile(pattern) for pattern in self.ignored]
        unknown = sorted(
            key for key in set(keys) - set(needed) if not any(pattern.fullmatch(key) for pattern in ignored)
        )
        if unknown:
            raise ModelError(f"{where} holds the unknown weight {_first(unknown)}")
        if missing := sorted(set(needed) - set(keys)):
            raise ModelError(f"{where} lacks the weight {_first(missing)}")
        for name, one in plan.items():
            if not name.startswith(only):
                continue
            parts = [read(spelled[key]) for key in one.theirs]
            for key, part, like in zip(one.theirs, parts, one.form.split(ours[name]), strict=True):
                if part.shape != like.shape:
                    raise ModelError(
                        f"{where}: {key} has shape {tuple(part.shape)}, its config asks for {tuple(like.shape)}"
                    )
            made = one.form.join(parts)
            yield name, made if one.theirs else made.expand(ours[name].shape)

    def _spelled(self, keys: Collection[str], where: str) -> dict[str, str]:
        """Name in the files of each name in the rows' spelling. Raises `ModelError` for a weight spelled in two ways."""
        found: dict[str, str] = {}
        for key in keys:
            name = key
            for pattern, replacement in self.spellings:
                if re.fullmatch(pattern, name):
                    name = re.sub(pattern, replacement, name)
            if name in found:
                raise ModelError(f"{where} holds the weight {name} twice, as {found[name]} and as {key}")
            found[name] = key
        return found


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
