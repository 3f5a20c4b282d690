"""Servers with the tests' tiny model: in this process for routes, as real processes for what kills them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra unclip[serve] is not installed")

from starlette.testclient import TestClient

from unclip.serve.app import create_app
from unclip.serve.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, tiny_folder: Path) -> Settings:
    """Settings of a server with one worker in a thread."""
    return Settings(
        folder=str(tmp_path / "data"), models={"tiny": str(tiny_folder)}, device="cpu", workers=0, threads=1
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A client of a running app."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as found:
        yield found


@pytest.fixture
def finished(client: TestClient) -> Callable[[str], dict[str, Any]]:
    """Waits for a job to be over, and gives it."""

    def wait(id: str, seconds: float = 30.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job = client.get(f"/api/jobs/{id}").json()
            if job["ended"] is not None:
                return job
            time.sleep(0.02)
        raise AssertionError(f"the job is not over: {job}")

    return wait
