"""What the compatible API needs of the server: models, and jobs that draw."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from unclip.generate.request import Request


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that the server has: its name, the sides of the pictures that it draws, and what it cannot do."""

    name: str
    sizes: tuple[int, ...]
    default_size: int
    step: int | None = None
    """Number whose multiples the model draws as sides of pictures of any shape; None for one that draws `sizes` alone."""
    created: int = 0
    """Unix time of the model's making, 0 if unknown."""
    lacks: dict[str, str] = field(default_factory=dict)
    """Kind of request -> why the model cannot run it."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A picture as it looks so far: PNG, and the share of its steps that are done, in (0, 1)."""

    picture: int
    png: bytes
    fraction: float


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A finished picture: its place in the job, its id (32 hexadecimal digits), and what its provenance says."""

    picture: int
    id: str
    seed: int
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Backend(Protocol):
    """The server behind the API. All methods raise `ServerError` or the errors of requests."""

    async def models(self) -> Sequence[Served]:
        """The models, the default one first."""
        ...

    async def submit(
        self, request: Request, sources: Sequence[bytes], *, model: str, previews: bool, owner: str | None
    ) -> str:
        """Id of a new job; `sources` are PNG files."""
        ...

    def events(self, job: str) -> AsyncIterator[Preview | Drawn]:
        """Previews and pictures of a job as they are made; ends when it is done, raises when it failed."""
        ...

    async def cancel(self, job: str) -> None:
        """End a job within a sampling step. One that has ended already is left alone."""
        ...

    async def picture(self, id: str) -> bytes | None:
        """PNG of a finished picture; None where there is none."""
        ...
