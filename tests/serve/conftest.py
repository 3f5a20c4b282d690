"""Servers with the tests' tiny model: in this process for routes, as real processes for what kills them."""

import contextlib
import importlib.util
import sys
import threading
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


@pytest.fixture(scope="session")
def load_helper() -> Callable[[str], Any]:
    """`load_helper(name)`: the module `tests/serve/name.py`."""

    def load(name: str) -> Any:
        own = f"serve_{name.replace('/', '_')}"
        if own not in sys.modules:
            spec = importlib.util.spec_from_file_location(own, Path(__file__).parent / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            sys.modules[own] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[own])
        return sys.modules[own]

    return load


@pytest.fixture(scope="session")
def run_server() -> Callable[..., Any]:
    """`with run_server(app) as address`: an ASGI application on real uvicorn, on a free port of 127.0.0.1."""
    import uvicorn

    @contextlib.contextmanager
    def run(app: Any, **options: Any) -> Iterator[str]:
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="on", **options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        end = time.monotonic() + 30
        while not server.started:
            if not thread.is_alive() or time.monotonic() > end:
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(20)

    return run
