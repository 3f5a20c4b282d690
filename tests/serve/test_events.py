"""Server-sent events: progress, previews and pictures, resumed where a reader stopped."""

import json
from collections.abc import Iterator
from typing import Any

from starlette.testclient import TestClient


def read(client: TestClient, url: str, after: str | None = None) -> Iterator[tuple[str | None, str, Any]]:
    """Number, type and data of each event, until the stream ends."""
    headers = {} if after is None else {"Last-Event-ID": after}
    with client.stream("GET", url, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        block: dict[str, str] = {}
        for line in answer.iter_lines():
            if not line and "event" in block:
                yield block.get("id"), block["event"], json.loads(block["data"])
            if not line:
                block = {}
                continue
            name, _, value = line.partition(": ")
            block[name] = value


def job(client: TestClient, **more: Any) -> str:
    request = {"kind": "generate", "prompt": "a red apple", "seed": 1, **more}
    return client.post("/api/jobs", json={"request": request}).json()["id"]


def test_stream_has_progress_previews_pictures_and_an_end(client: TestClient):
    id = job(client, n=2, sampling={"decoder": {"steps": 300}})
    found = list(read(client, f"/api/jobs/{id}/events"))
    types = [type for _, type, _ in found]
    assert types[0] == "job"
    assert types[-1] == "end"
    assert types.count("picture") == 2
    steps = [data for _, type, data in found if type == "progress"]
    assert {one["stage"] for one in steps} >= {"decoder"}
    assert all(0 < one["fraction"] <= 1 and one["step"] <= one["steps"] for one in steps)
    previews = [data for _, type, data in found if type == "preview"]
    assert previews
    assert all(one["image"].startswith("data:image/png;base64,") for one in previews)
    assert found[-1][2]["state"] == "done"
    assert [data["index"] for _, type, data in found if type == "picture"] == [0, 1]


def test_stream_is_resumed_after_the_last_event(client: TestClient):
    id = job(client, n=3)
    whole = [event for event in read(client, f"/api/jobs/{id}/events") if event[0] is not None]
    for position, (number, _, _) in enumerate(whole[:-1]):
        rest = list(read(client, f"/api/jobs/{id}/events", after=number))
        assert [event[:2] for event in rest] == [event[:2] for event in whole[position + 1 :]]
    # After the last one there is nothing but the end.
    assert [type for _, type, _ in read(client, f"/api/jobs/{id}/events", after=whole[-1][0])] == ["end"]


def test_stream_of_all_jobs_replays_from_a_number(client: TestClient, finished):
    first = job(client)
    finished(first)
    second = job(client)
    finished(second)
    seen = []
    for number, type, data in read(client, "/api/events", after="0"):
        assert number is not None
        seen.append((type, data.get("id") or data.get("job")))
        if seen[-1] == ("end", second):
            break
    assert ("end", first) in seen
    assert sum(type == "picture" for type, _ in seen) == 2


def test_bad_numbers_and_jobs_are_refused(client: TestClient):
    assert client.get("/api/events", headers={"Last-Event-ID": "x"}).status_code == 400
    assert client.get("/api/jobs/00000000-0000-0000-0000-000000000000/events").status_code == 404
    assert client.get("/api/jobs/..%2f/events").status_code == 404
