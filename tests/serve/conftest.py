"""Servers with the tests' tiny model: in this process for routes, as real processes for what kills them."""

import contextlib
import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra unclip[serve] is not installed")

from starlette.testclient import TestClient

from unclip.serve.app import create_app
from unclip.serve.front import Access, front_app
from unclip.serve.guard.keys import Keys
from unclip.serve.settings import Settings
from unclip.stages.sampling import sampling


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
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on", **options)
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


KEY = "sk-test-0123456789abcdef"


@pytest.fixture(scope="session")
def own_key() -> str:
    """An API key."""
    return KEY


class Clock:
    """Unix time that tests move."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def own_clock() -> type[Clock]:
    """A clock that tests move."""
    return Clock


@pytest.fixture(scope="session")
def steady_folder(tiny, tmp_path_factory) -> Path:
    """A model folder like that of `tiny_folder`, with enough steps to be seen while it draws."""

    class Steady(tiny):
        defaults = sampling(steps=12, prior_steps=2, upsampler_steps=2, candidates=2, guidance=2.0)

    return Steady.save(tmp_path_factory.mktemp("models") / "steady")


@pytest.fixture(scope="session")
def serve(steady_folder, tmp_path_factory, run_server):
    """`with serve(**access) as server`: the whole server, its queue and a worker, with its address, key, and clock."""

    @contextlib.contextmanager
    def run(*, keys=(f"alice:{KEY}",), **access):
        folder, clock = tmp_path_factory.mktemp("server"), Clock()
        settings = Settings(
            folder=str(folder),
            models={"tiny": str(steady_folder)},
            device="cpu",
            workers=0,
            threads=1,
            max_upload=2_000_000,
        )
        app = front_app(settings, Access(**access), keys=Keys.of(keys), clock=clock)
        with pytest.MonkeyPatch.context() as patch, run_server(app) as url:
            # Every step of so small a model is shown.
            patch.setattr("unclip.serve.follower.NOTE_SECONDS", 0.0)
            patch.setattr("unclip.serve.follower.NOTE_SHARE", 1.0)
            patch.setattr("unclip.serve.follower.PREVIEW_SECONDS", 0.0)
            patch.setattr("unclip.serve.follower.SOON_SECONDS", 0.0)
            yield SimpleNamespace(app=app, url=url, key=KEY, clock=clock, folder=folder)

    return run


@pytest.fixture(scope="session")
def server(serve):
    """The whole server, for the whole session."""
    with serve() as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests of real browsers and processes up to twice more: a busy machine may be slower than they wait for it.

    A test that is wrong fails every time; one that passed later is reported as rerun.
    """
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=2))
