"""Health, readiness, measurements, and what the server offers."""

import dataclasses
import json
import logging
from pathlib import Path

from starlette.testclient import TestClient

from tests.serve.processes import until
from unclip.generate.operations import BY_KIND
from unclip.generate.placement import best_device
from unclip.serve.app import create_app
from unclip.serve.logs import JsonFormatter
from unclip.serve.settings import Settings


def test_config_says_what_each_model_can_do(client: TestClient):
    found = client.get("/api/config").json()
    (model,) = found["models"]
    assert (model["name"], model["sizes"], found["default_model"]) == ("tiny", [16, 32], "tiny")
    assert set(model["operations"]) == set(BY_KIND)
    assert model["operations"]["generate"] is True
    assert "autoregressive prior" in model["operations"]["components"]
    kinds = {
        one["properties"]["kind"]["const"]
        for one in client.get("/api/schema").json()["$defs"].values()
        if "kind" in one.get("properties", {}) and "const" in one["properties"]["kind"]
    }
    assert kinds == set(BY_KIND)


def test_device_that_a_worker_chose_is_named(settings: Settings):
    with TestClient(create_app(dataclasses.replace(settings, device=None))) as client:
        (worker,) = until(lambda: client.get("/api/queue").json()["workers"])
    assert worker["device"] == str(best_device())


def test_ready_with_worker_and_not_while_ending(client: TestClient):
    assert client.get("/healthz").json() == {"status": "ok"}
    for _ in range(100):
        if (answer := client.get("/readyz")).status_code == 200:
            break
    assert answer.json()["checks"]["workers"] == "ok"
    client.app.state.service.draining.set()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    refused = client.post("/api/jobs", json={"request": {"kind": "generate", "prompt": "x"}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")


def test_metrics_count_pictures_and_requests(client: TestClient, finished):
    id = client.post("/api/jobs", json={"request": {"kind": "generate", "prompt": "x", "n": 2}}).json()["id"]
    finished(id)
    text = client.get("/metrics").text
    assert 'unclip_pictures{state="done"} 2.0' in text
    assert "unclip_database_up 1.0" in text
    assert 'route="/api/jobs/{id}"' in text


def test_requests_have_ids_and_logs_have_no_prompts(client: TestClient, finished, caplog):
    with caplog.at_level(logging.DEBUG, logger="unclip"):
        answer = client.post(
            "/api/jobs",
            json={"request": {"kind": "generate", "prompt": "a secret"}},
            headers={"X-Request-ID": "mine-1"},
        )
        finished(answer.json()["id"])
    assert answer.headers["x-request-id"] == "mine-1"
    assert len(client.get("/healthz", headers={"X-Request-ID": "bad id!"}).headers["x-request-id"]) == 32
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert any(json.loads(line).get("path") == "/api/jobs" for line in lines)
    assert not any("secret" in line for line in lines)


def test_unknown_paths_and_methods_have_the_errors_of_the_api(client: TestClient):
    assert client.get("/api/nothing").json()["error"]["type"] == "invalid_request_error"
    assert client.put("/api/jobs").status_code == 405
    assert client.post("/api/jobs", content=b"{").status_code == 400
    assert client.post("/api/jobs", content=b"x" * (2 << 20)).status_code == 413


def test_system_names_database_and_store(client: TestClient, settings):
    found = client.get("/api/system").json()
    assert found["store"] == str(Path(settings.folder) / "pictures")
    assert found["database"].endswith("unclip.db")
    assert found["models"][0]["name"] == "tiny"
    assert client.post("/api/models/tiny/verify").json()["ok"] is True
    assert client.post("/api/models/none/verify").status_code == 400
