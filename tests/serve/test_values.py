"""Values that no answer and no database can hold: refused by name, or shown, and never an error of the server."""

import json
from io import BytesIO

import pytest
from PIL import Image, PngImagePlugin
from starlette.testclient import TestClient


def png(**text: str) -> bytes:
    info, buffer = PngImagePlugin.PngInfo(), BytesIO()
    for name, value in text.items():
        info.add_text(name, value)
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # ComfyUI writes `is_changed: [NaN]` for nodes that always run.
        ({"prompt": '{"1": {"inputs": {"text": "a cat"}, "is_changed": [NaN]}}'}, [None]),
        ({"prompt": '{"1": {"inputs": {"text": "a cat"}, "is_changed": ["\\ud800"]}}'}, ["\\ud800"]),
        ({"unclip": '{"provenance": 2, "is_changed": [-Infinity, 1e999]}'}, [None, None]),
        ({"unclip": '{"provenance": 9, "is_changed": ["\\udfff"]}'}, ["\\udfff"]),
    ],
)
def test_records_that_no_answer_can_hold(client: TestClient, text, shown):
    answer = client.post("/api/read", content=png(**text))
    assert answer.status_code == 200, answer.text
    found = answer.json()["provenance"]
    assert (found if "unclip" in text else found["prompt"]["1"])["is_changed"] == shown
    assert client.post("/api/uploads", content=png(**text)).status_code == 201


@pytest.mark.parametrize("seed", ["²", "9" * 5000, "99999999999999999999", "abc", "1.5"])
def test_a_seed_that_is_none_loses_nothing_else(client: TestClient, seed):
    lines = f"a cat\nNegative prompt: dogs\nSteps: 20, CFG scale: nan, Sampler: DDIM, Seed: {seed}"
    answer = client.post("/api/read", content=png(parameters=lines))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["request"]["prompt"], found["request"]["negative"]) == ("a cat", "dogs")
    assert found["request"]["sampling"]["decoder"] == {"steps": 20, "sampler": "ddim"}
    assert "seed" not in found["request"]
    assert sum("seed" in one for one in found["warnings"]) == 1
    assert sum("guidance" in one for one in found["warnings"]) == 1
    assert max(map(len, found["warnings"])) < 200


def test_a_prompt_is_not_made_up_nor_cut_without_a_word(client: TestClient):
    answer = client.post("/api/read", content=png(parameters="Negative prompt: x\nSteps: 20, Seed: -1"))
    assert answer.status_code == 400
    assert "no prompt" in answer.json()["error"]["message"]
    long = "word " * 3000
    for text in (
        {"parameters": f"{long}\nSteps: 20"},
        {"prompt": json.dumps({"1": {"inputs": {"text": long}}})},
    ):
        found = client.post("/api/read", content=png(**text)).json()
        assert len(found["request"]["prompt"]) < len(long)
        assert any("characters: the first" in one for one in found["warnings"])


BODIES = {
    "/api/collections": ('{"name": "VALUE"}', "body.name"),
    "/api/canvases": (
        '{"name": "x", "width": 8, "height": 8, "state": {"a": ["VALUE"]}}',
        r"body.state.a[0]",
    ),
    "/api/jobs": ('{"request": {"kind": "generate", "prompt": "VALUE"}}', "body.request.prompt"),
}


@pytest.mark.parametrize("value", ["\\ud800", "a\\u0000b"])
@pytest.mark.parametrize("path", BODIES)
def test_text_that_is_none(client: TestClient, path, value):
    body, name = BODIES[path]
    answer = client.post(path, content=body.replace("VALUE", value))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith(f"{name} holds ")
    assert client.get(path).json()["items"] == []


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite(client: TestClient, value):
    body = BODIES["/api/canvases"][0].replace('"VALUE"', value)
    answer = client.post("/api/canvases", content=body)
    assert answer.status_code == 400, answer.text
    assert "body.state.a[0] is " in answer.json()["error"]["message"]
    assert client.get("/api/canvases").json()["items"] == []


@pytest.mark.parametrize("limit", ["000000000001" + "9" * 5000, "00000000000199999", "1" * 13, "0"])
@pytest.mark.parametrize("path", ["/api/pictures", "/api/jobs"])
def test_numbers_of_a_query_are_bounded(client: TestClient, path, limit):
    answer = client.get(f"{path}?limit={limit}")
    assert answer.status_code == 400
    assert "give a number from 1 to" in answer.json()["error"]["message"]
    assert len(answer.text) < 300


def test_zero_bytes_in_a_query(client: TestClient):
    answer = client.get("/api/pictures?q=a%00b")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("q holds a zero byte")
