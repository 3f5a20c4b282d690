"""The OpenAPI document: every route is in it, and real answers have its shapes."""

import os
from typing import Any

import httpx2 as httpx
import pytest
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from tests.serve.exploring import explore
from unclip.serve import shapes
from unclip.serve.openapi import OPERATIONS, document


def test_every_route_is_described_and_every_description_has_a_route(client: TestClient):
    described = {(one.method.upper(), one.path) for one in OPERATIONS}
    made = set()
    for route in client.app.routes:
        if not route.path.startswith("/api/") and route.path not in ("/healthz", "/readyz", "/metrics"):
            continue
        path = route.path.replace(":int", "").replace(":path", "")
        actions = {
            "/api/jobs/{id}/{action}": ("cancel", "pause", "resume", "retry"),
            "/api/queue/{action}": ("pause", "resume"),
        }
        for method in route.methods - {"HEAD"}:
            made |= {(method, path.replace("{action}", action)) for action in actions.get(path, ("",))}
    assert described == made - {("GET", "/api/openapi.json")}
    assert client.get("/api/openapi.json").json() == document()


def test_references_lead_somewhere():
    found = document()
    schemas = found["components"]["schemas"]

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    used = references(found)
    assert used
    assert {name.rpartition("/")[2] for name in used} <= set(schemas)
    assert "discriminator" in schemas["JobBody"]["properties"]["request"]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/api/jobs", shapes.Jobs),
        ("/api/pictures", shapes.Pictures),
        ("/api/queue", shapes.QueueState),
        ("/api/collections", shapes.Collections),
        ("/api/canvases", shapes.Canvases),
    ],
)
def test_answers_have_their_shapes(client: TestClient, finished, path: str, shape: Any):
    client.post("/api/collections", json={"name": "one"})
    client.post("/api/canvases", json={"width": 8, "height": 8})
    id = client.post("/api/jobs", json={"request": {"kind": "generate", "prompt": "x"}}).json()["id"]
    finished(id)
    TypeAdapter(shape).validate_python(client.get(path).json(), strict=True)


STREAMS = ("/api/events", "/api/jobs/{id}/events")
"""Events have a test of their own: the first of these streams never ends."""


def explore_own(serve, examples: int) -> None:
    pytest.importorskip("schemathesis")
    with serve() as server:
        headers = {"Authorization": f"Bearer {server.key}"}
        # Ids that lead somewhere: jobs, pictures, collections and canvases are there to be found by lists.
        for path, body in (
            ("/api/jobs", {"request": {"kind": "generate", "prompt": "a red apple"}}),
            ("/api/collections", {"name": "one"}),
            ("/api/canvases", {"width": 8, "height": 8}),
        ):
            assert httpx.post(f"{server.url}{path}", json=body, headers=headers).status_code == 201
        explore(server.url, server.key, "/api/openapi.json", examples, leave_out=STREAMS)


@pytest.mark.filterwarnings("ignore:Do not use the .random. module inside strategies")
def test_schemathesis_finds_nothing_in_the_own_api(serve):
    explore_own(serve, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Do not use the .random. module inside strategies")
def test_schemathesis_finds_nothing_in_many_examples_of_the_own_api(serve):
    explore_own(serve, int(os.environ.get("UNCLIP_EXAMPLES", "100")))
