"""The compatible API over a real model, behind all guards."""

from types import SimpleNamespace

import pytest
from starlette.applications import Starlette

from unclip.serve.guard.errors import handlers
from unclip.serve.guard.guarded import body_limits, guards
from unclip.serve.guard.hosts import allowed_hosts
from unclip.serve.guard.keys import Keys
from unclip.serve.openai.options import Options
from unclip.serve.openai.routes import OpenAI


@pytest.fixture(scope="session")
def assemble(load_helper, own_clock, own_key):
    """`assemble(model, **options)`: the application, its backend and its clock."""
    direct = load_helper("openai/direct")

    def make(model, *, keys=(f"alice:{own_key}",), buckets=None, **options):
        backend, clock = direct.Direct(model), own_clock()
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
        return SimpleNamespace(app=app, backend=backend, clock=clock, key=own_key, api=api)

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
