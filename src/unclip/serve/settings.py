"""Settings of the server and its workers."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from unclip.config import Param, check
from unclip.errors import RequestError


def data_folder() -> Path:
    """The user's folder for data of programs: `UNCLIP_DATA`, else the system's place for it."""
    if given := os.environ.get("UNCLIP_DATA"):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "unclip"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "unclip"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "unclip"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a server and its workers; `Settings(folder=...)` has a working value for all others."""

    folder: str = field(default_factory=lambda: str(data_folder()))
    """Folder of the database and the pictures, where no other place is given."""
    database: str | None = None
    """SQLAlchemy URL; SQLite in `folder` if not given."""
    store: str | None = None
    """`s3://bucket/prefix`, another URL of obstore, or a folder; `pictures` in `folder` if not given."""
    models: dict[str, str] = field(default_factory=lambda: {"artwork": "artwork"})
    """Name that requests use -> bundled name, folder, or hub id that was pulled; the first is the default."""
    device: str | None = None
    dtype: str | None = None
    """None: "auto" for public models, "float32" for others."""
    backend: str | None = None
    backend_precision: str | None = None
    offload: bool = False
    memory: Annotated[
        int | None, Param("bytes of weights that a worker keeps loaded; no limit if not given", ge=1)
    ] = None
    batch: Annotated[int | None, Param("pictures of one model and sampling drawn together", ge=1, le=256)] = (
        None
    )
    """None: 1 on the CPU, where a picture is then the same bit for bit as alone, 8 elsewhere."""
    workers: Annotated[int, Param("worker processes that the server starts", ge=0, le=64)] = 1
    threads: Annotated[
        int, Param("workers in threads of the server itself, for tests and notebooks", ge=0, le=8)
    ] = 0
    max_queue: Annotated[int, Param("pictures that may wait", ge=1, le=10_000_000)] = 1000
    max_n: Annotated[int, Param("pictures of one job", ge=1, le=10_000)] = 64
    max_side: Annotated[int, Param("longest side of a given picture, in pixels", ge=16, le=16_384)] = 4096
    max_upload: Annotated[int, Param("bytes of a given picture", ge=1024)] = 16 << 20
    max_attempts: Annotated[
        int, Param("starts of a picture whose worker ends, before it is given up", ge=1)
    ] = 3
    lease: Annotated[
        float, Param("seconds without a heartbeat after which a worker counts as gone", ge=0.2)
    ] = 10.0
    drain: Annotated[float, Param("seconds that running pictures have to finish after SIGTERM", ge=0)] = 30.0
    keep_days: Annotated[
        float, Param("days until the records of jobs that are over are removed; their pictures stay", ge=0)
    ] = 90.0
    undo_days: Annotated[float, Param("days until deleted pictures are removed for good", ge=0)] = 30.0
    log_prompts: bool = False

    def __post_init__(self) -> None:
        """Raise `RequestError` for a value out of range."""
        check(self, RequestError)
        if not self.models:
            raise RequestError("there are no models: give at least one with --model")

    @property
    def default_model(self) -> str:
        """Name of the model of requests that name none."""
        return next(iter(self.models))

    @property
    def database_url(self) -> str:
        """URL of the database."""
        return self.database or f"sqlite:///{Path(self.folder).absolute() / 'unclip.db'}"

    @property
    def store_url(self) -> str:
        """Place of the pictures."""
        return self.store or str(Path(self.folder).absolute() / "pictures")
