"""What goes into the queue and comes out of it: jobs, pictures to be drawn, finished ones, and progress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to be queued: its request, complete with seed, and the requests of its pictures."""

    kind: str
    request: Mapping[str, Any]
    alone: Sequence[Mapping[str, Any]]
    groups: Sequence[str]
    sources: Sequence[tuple[str, str]]
    model: str
    priority: int = 0
    previews: bool = True
    collection: str | None = None
    client: str | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A picture to be drawn."""

    id: str
    job: str
    index: int
    kind: str
    model: str
    request: Mapping[str, Any]
    sources: Sequence[tuple[str, str]]
    previews: bool
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is recorded of a finished picture."""

    width: int
    height: int
    seed: int
    prompt: str | None
    provenance: Mapping[str, Any]
    size: int
    seconds: float
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Note:
    """Progress of a task: the last step of a stage, and how the picture looks, as PNG."""

    task: str
    job: str
    index: int
    stage: str
    step: int
    steps: int
    fraction: float
    preview: bytes | None = None
    size: tuple[int, int] = field(default=(0, 0))
