"""The compatible API over a real model, behind all guards."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette

from unclip.serve.front import Access, front_app
from unclip.serve.guard.errors import handlers
from unclip.serve.guard.guarded import body_limits, guards
from unclip.serve.guard.hosts import allowed_hosts
from unclip.serve.guard.keys import Keys
from unclip.serve.openai.options import Options
from unclip.serve.openai.routes import OpenAI
from unclip.serve.settings import Settings
from unclip.stages.sampling import sampling

KEY = "sk-test-0123456789abcdef"


class Clock:
    """Unix time that tests move."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def assemble(load_helper):
    """`assemble(model, **options)`: the application, its backend and its clock."""
    direct = load_helper("openai/direct")

    def make(model, *, keys=(f"alice:{KEY}",), buckets=None, **options):
        backend, clock = direct.Direct(model), Clock()
        options = Options(**{"secret": b"secret of the tests"} | options)
        api = OpenAI(backend, options, clock=clock)
        app = Starlette(
            routes=api.routes,
            exception_handlers=handlers(),
            middleware=guards(
                keys=Keys.of(keys),
                hosts=allowed_hosts("127.0.0.1"),
                buckets=buckets,
                limits=body_limits(options.max_picture),
            ),
        )
        return SimpleNamespace(app=app, backend=backend, clock=clock, key=KEY, api=api)

    return make


@pytest.fixture(scope="session")
def running(assemble, tiny_model, run_server):
    """A server that runs for the whole session."""
    made = assemble(tiny_model)
    with run_server(made.app) as made.url:
        yield made


@pytest.fixture
def api(running):
    """A running server with a key, and nothing left of other tests."""
    running.backend.reset()
    yield running
    running.backend.hold.set()


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
            patch.setattr("unclip.serve.worker.NOTE_SECONDS", 0.0)
            patch.setattr("unclip.serve.worker.PREVIEW_SECONDS", 0.0)
            yield SimpleNamespace(app=app, url=url, key=KEY, clock=clock, folder=folder)

    return run


@pytest.fixture(scope="session")
def server(serve):
    """The whole server, for the whole session."""
    with serve() as running:
        yield running
