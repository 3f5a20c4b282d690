"""Jobs by HTTP: from a request to pictures, in order, held back, ended and tried again."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from unclip.generate.model import Model
from unclip.generate.operations import REQUESTS, Generate, Interpolate, TextDiff, Vary, read_request
from unclip.images.metadata import read_provenance
from unclip.serve.plan import kind_of, split, with_seed

Wait = Callable[[str], dict[str, Any]]


def submit(client: TestClient, request: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = client.post("/api/jobs", json={"request": request, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def upload(client: TestClient, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> str:
    image = Image.linear_gradient("L").resize(size).convert(mode)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    answer = client.post("/api/uploads", content=buffer.getvalue())
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_job_becomes_the_pictures_that_the_model_makes(client: TestClient, finished: Wait, tiny_model: Model):
    job = submit(client, {"kind": "generate", "prompt": "a red apple", "n": 4, "seed": 5})
    done = finished(job["id"])
    assert (done["state"], done["done"]) == ("done", 4)
    together = tiny_model.run(Generate(prompt="a red apple", n=4, seed=5))
    for picture, expected in zip(done["pictures"], together, strict=True):
        data = client.get(picture["url"]).content
        assert Image.open(BytesIO(data)).tobytes() == expected.image.tobytes()
        assert read_provenance(data) == expected.provenance
        # Four calls of one picture each, with the recorded seeds, make the same four.
        alone = next(tiny_model.run(Generate(prompt="a red apple", seed=picture["seed"])))
        assert alone.image.tobytes() == expected.image.tobytes()


EVERY_KIND: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "generate": ({"prompt": ["a red apple", "a blue cat"]}, ()),
    "redraw": ({"prompt": "a red apple", "n": 2}, ("picture",)),
    "vary": ({"n": 2}, ("picture",)),
    "interpolate": ({"frames": 2}, ("first", "last")),
    "text_diff": ({"target": "a blue cat", "frames": 2}, ("picture",)),
    "edit": ({"prompt": "a blue cat", "box": [4, 4, 20, 20], "n": 2}, ("picture",)),
    "outpaint": ({"prompt": "a red apple", "left": 8}, ("picture",)),
    "upscale": ({}, ("picture",)),
    "reconstruct": ({}, ("picture",)),
    "components": ({"dimensions": [1, 2], "basis": "given"}, ("picture", "basis", "basis", "basis")),
}


@pytest.mark.parametrize(
    "kind", [kind_of_class.__dataclass_fields__["kind"].default for kind_of_class in REQUESTS]
)
def test_every_operation_gives_the_pictures_of_the_model(
    kind: str, client, finished: Wait, tiny_model: Model
):
    fields, roles = EVERY_KIND[kind]
    ids = [upload(client, (32, 32 + index)) for index in range(len(roles))]
    sources: dict[str, Any] = {}
    for role, id in zip(roles, ids):
        sources[role] = (
            [*sources[role], id] if role in sources and role == "basis" else [id] if role == "basis" else id
        )
    job = submit(client, {"kind": kind, "seed": 3, **fields}, sources=sources)
    done = finished(job["id"])
    assert done["state"] == "done", done
    given = [client.get(f"/api/uploads/{id}/file").content for id in ids]
    expected = list(tiny_model.run(read_request({"kind": kind, "seed": 3, **fields}), given))
    assert len(expected) == done["n"]
    for picture, image in zip(done["pictures"], expected, strict=True):
        assert Image.open(BytesIO(client.get(picture["url"]).content)).tobytes() == image.image.tobytes()
        assert [source["role"] for source in picture["sources"]] == list(roles)


def test_split_makes_one_request_a_picture():
    assert split(Generate(prompt="x", n=2, seed=4))[0].seed == 4
    assert len(split(Generate(prompt=("x", "y"), n=2, seed=4))) == 4
    assert len({one.seed for one in split(Vary(n=3, seed=9))}) == 3
    assert [getattr(one, "thetas", 0) for one in split(Interpolate(frames=3, seed=1))] == [
        (0.0,),
        (0.5,),
        (1.0,),
    ]
    assert [getattr(one, "thetas", 0) for one in split(TextDiff(target="x", frames=2, seed=1))] == [
        (0.0,),
        (0.5,),
    ]
    assert with_seed(Generate(prompt="x")).seed is not None
    assert kind_of(Vary()) == "vary"


def test_order_priority_and_places(client: TestClient, finished: Wait):
    client.post("/api/queue/pause")
    first, second, third = (submit(client, {"kind": "generate", "prompt": f"number {k}"}) for k in range(3))
    urgent = submit(client, {"kind": "generate", "prompt": "urgent"}, priority=5)
    client.patch(f"/api/jobs/{third['id']}", json={"before": second["id"]})
    open_jobs = client.get("/api/jobs?state=open").json()["items"]
    order = [job["id"] for job in sorted(open_jobs, key=lambda job: job["place"])]
    assert order == [urgent["id"], first["id"], third["id"], second["id"]]
    assert client.get("/api/queue").json()["waiting"] == 4
    client.post("/api/queue/resume")
    started = [finished(id)["started"] for id in order]
    assert started == sorted(started)


def test_paused_job_waits_and_goes_on(client: TestClient, finished: Wait):
    client.post("/api/queue/pause")
    job = submit(client, {"kind": "generate", "prompt": "a red apple"})
    assert client.post(f"/api/jobs/{job['id']}/pause").json()["state"] == "paused"
    other = submit(client, {"kind": "generate", "prompt": "a blue cat"})
    client.post("/api/queue/resume")
    finished(other["id"])
    assert client.get(f"/api/jobs/{job['id']}").json()["state"] == "paused"
    client.post(f"/api/jobs/{job['id']}/resume")
    assert finished(job["id"])["state"] == "done"


def test_cancelled_job_stops_within_a_step_and_can_be_retried(client: TestClient, finished: Wait):
    slow = {"decoder": {"steps": 1000}}
    job = submit(client, {"kind": "generate", "prompt": "a red apple", "n": 2, "sampling": slow, "seed": 1})
    with client.stream("GET", f"/api/jobs/{job['id']}/events") as events:
        for line in events.iter_lines():
            if line == "event: progress":
                break
    cancelled = client.post(f"/api/jobs/{job['id']}/cancel").json()
    assert cancelled["state"] == "cancelled"
    assert cancelled["ended"] is not None
    quick = submit(client, {"kind": "generate", "prompt": "a blue cat"})
    assert finished(quick["id"])["state"] == "done"
    again = client.post(f"/api/jobs/{job['id']}/retry").json()
    assert again["state"] == "waiting"
    client.post(f"/api/jobs/{job['id']}/cancel")


def test_one_picture_of_a_job_is_cancelled(client: TestClient, finished: Wait):
    client.post("/api/queue/pause")
    job = submit(client, {"kind": "generate", "prompt": "a red apple", "n": 3})
    client.post(f"/api/jobs/{job['id']}/pictures/1/cancel")
    client.post("/api/queue/resume")
    done = finished(job["id"])
    assert done["state"] == "done"
    assert done["states"] == ["done", "cancelled", "done"]
    assert done["pictures"][1] is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"request": {"kind": "paint"}}, "'paint'"),
        ({"request": {"kind": "generate"}}, "prompt"),
        ({"request": {"kind": "generate", "prompt": "x", "size": 33}}, "16, 32"),
        ({"request": {"kind": "generate", "prompt": "x"}, "model": "other"}, "'other'"),
        ({"request": {"kind": "generate", "prompt": "x"}, "sources": {"mask": "y"}}, "'mask'"),
        ({"request": {"kind": "vary"}}, "'picture'"),
        ({"request": {"kind": "vary"}, "sources": {"picture": "y"}}, "'y'"),
        ({"request": {"kind": "generate", "prompt": "x", "n": 65}}, "up to 64"),
        ({"request": {"kind": "generate", "prompt": "x"}, "n": 0}, "from 1"),
        ({"request": {"kind": "upscale"}, "n": 2}, "leave n out"),
        ({"request": {"kind": "generate", "prompt": "x"}, "colour": 1}, "'colour'"),
        ({}, "request"),
    ],
)
def test_bad_jobs_are_refused_with_the_remedy(client: TestClient, body: dict[str, Any], words: str):
    answer = client.post("/api/jobs", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_full_queue_says_when_to_come_back(client: TestClient, settings):
    client.post("/api/queue/pause")
    for _ in range(settings.max_queue // 64):
        submit(client, {"kind": "generate", "prompt": "x", "n": 64})
    answer = client.post("/api/jobs", json={"request": {"kind": "generate", "prompt": "x", "n": 64}})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
