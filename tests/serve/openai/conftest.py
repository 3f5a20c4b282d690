"""The compatible API over a real model, behind all guards."""

from types import SimpleNamespace

import pytest
from starlette.applications import Starlette

from unclip.serve.guard.errors import handlers
from unclip.serve.guard.guarded import body_limits, guarded
from unclip.serve.guard.hosts import allowed_hosts
from unclip.serve.guard.keys import Keys
from unclip.serve.openai.options import Options
from unclip.serve.openai.routes import OpenAI

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
        app = Starlette(routes=api.routes, exception_handlers=handlers())
        whole = guarded(
            app,
            keys=Keys.of(keys),
            hosts=allowed_hosts("127.0.0.1"),
            buckets=buckets,
            limits=body_limits(options.max_picture),
        )
        return SimpleNamespace(app=whole, backend=backend, clock=clock, key=KEY, api=api)

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
