"""The compatible API on the server's queue: jobs, cancelling, a full queue, deletes, expiry, kept pixels."""

import base64
import io
import time

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from unclip.serve.errors import QueueFull, ServerError, Unavailable
from unclip.serve.openai.adapter import _check_end
from unclip.serve.states import LOST, NO_MEMORY, NOT_DRAWN


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {server.key}"}, timeout=120
    ) as client:
        yield client


def newest(http) -> dict:
    return http.get("/api/jobs").json()["items"][0]


def generate(http, **body):
    return http.post("/v1/images/generations", json={"prompt": "a red apple", "size": "32x32"} | body)


def test_a_call_is_a_job_with_the_keys_name(server, http):
    answer = generate(http, n=2, seed=3, response_format="b64_json")
    assert answer.status_code == 200, answer.text
    job = newest(http)
    assert (job["kind"], job["n"], job["state"]) == ("generate", 2, "done")
    for made, kept in zip(answer.json()["data"], job["pictures"], strict=True):
        assert made["seed"] == kept["seed"]
        assert base64.b64decode(made["b64_json"]) == http.get(kept["url"]).content


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_cancels_its_job(server, http, stream):
    http.post("/api/queue/pause").raise_for_status()
    try:
        with (
            httpx.Client(
                base_url=server.url, headers=http.headers, timeout=httpx.Timeout(30, read=1.0)
            ) as short,
            pytest.raises(httpx.ReadTimeout),
        ):
            generate(short, n=3, stream=stream)
        end = time.monotonic() + 30
        while (job := newest(http))["state"] != "cancelled" and time.monotonic() < end:
            time.sleep(0.05)
        assert (job["n"], job["state"], job["done"]) == (3, "cancelled", 0)
    finally:
        http.post("/api/queue/resume").raise_for_status()


def test_a_picture_that_was_deleted_or_whose_url_expired_is_not_given_out(server, http):
    urls = [one["url"] for one in generate(http, n=2).json()["data"]]
    assert [httpx.get(url).status_code for url in urls] == [200, 200]
    http.delete(f"/api/pictures/{newest(http)['pictures'][0]['id']}").raise_for_status()
    assert [httpx.get(url).status_code for url in urls] == [404, 200]
    server.clock.now += 3601
    answer = httpx.get(urls[1])
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_an_edit_keeps_opaque_pixels_to_the_bit(http):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    pixels[..., 3] = 255
    mask = pixels.copy()
    mask[16:40, 8:48, 3] = 0
    files = {}
    for name, array in (("image", pixels), ("mask", mask)):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format="PNG")
        files[name] = (f"{name}.png", buffer.getvalue(), "image/png")
    data = {"prompt": "a blue cat", "response_format": "b64_json"}
    answer = http.post("/v1/images/edits", files=files, data=data)
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))) as image:
        made = np.asarray(image.convert("RGBA"))
    hole = mask[..., 3] == 0
    assert np.array_equal(made[~hole], pixels[~hole])
    assert not np.array_equal(made[hole], pixels[hole])


def test_a_full_queue_and_an_ending_server_say_when_to_come_again(server, http, monkeypatch):
    service = server.app.state.service

    def full(*given, **named):
        raise QueueFull(1000, 12.3)

    monkeypatch.setattr(service.queue, "submit", full)
    answer = generate(http)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "12")
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    service.draining.set()
    try:
        answer = generate(http)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        assert int(answer.headers["retry-after"]) >= 1
    finally:
        service.draining.clear()


@pytest.mark.parametrize(
    ("state", "text", "kind", "status"),
    [
        ("failed", "the box does not lie in the picture", ServerError, 400),
        ("failed", f"{NO_MEMORY}: ask for a smaller size", Unavailable, 503),
        ("failed", f"{NOT_DRAWN} (KeyError)", ServerError, 500),
        ("failed", f"{LOST} 3 times while drawing it", ServerError, 500),
        ("cancelled", None, ServerError, 400),
    ],
)
def test_how_a_job_ended_decides_the_status(state, text, kind, status):
    with pytest.raises(kind) as caught:
        _check_end({"state": state, "error": text})
    assert caught.value.status == status
