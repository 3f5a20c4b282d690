"""The three calls over HTTP: fields, pictures, answers, errors."""

import asyncio
import base64
import io
import json
import threading
import time

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from unclip.images.files import open_picture
from unclip.images.metadata import read_provenance, read_text


def png(size=(32, 32), mode="RGBA", hole=None, colour=(200, 30, 60, 255)) -> bytes:
    """A picture whose pixels all differ a little, with a transparent box."""
    generator = np.random.default_rng(0)
    pixels = np.clip(np.array(colour) + generator.integers(-20, 20, (size[1], size[0], 4)), 0, 255)
    pixels[..., 3] = 255
    if hole:
        left, top, right, bottom = hole
        pixels[top:bottom, left:right, 3] = 0
    image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def client(api):
    with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {api.key}"}, timeout=60) as opened:
        yield opened


def generate(client, **body):
    return client.post("/v1/images/generations", json={"prompt": "a red apple"} | body)


def refused(answer, status=400):
    """The error of an answer, after a check of its shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    return error


def test_generation_by_url_has_the_picture_and_expires_after_an_hour(api, client):
    answer = generate(client, n=2, seed=7, size="32x32")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["created"] == int(api.clock.now)
    assert len(body["data"]) == 2
    assert int(answer.headers["openai-processing-ms"]) > 0
    url = body["data"][0]["url"]
    assert url.startswith(api.url + "/v1/files/images/")
    without_key = httpx.get(url)
    assert without_key.headers["content-type"] == "image/png"
    assert without_key.headers["cache-control"] == "private, no-store"
    picture = open_picture(without_key.content)
    expected = api.backend.model.generate("a red apple", n=2, seed=7, size=32)
    assert np.array_equal(np.asarray(picture), np.asarray(expected[0].image))
    assert body["data"][1]["seed"] == expected[1].seed
    api.clock.now += 3599
    assert httpx.get(url).status_code == 200
    api.clock.now += 2
    assert "expired" in refused(httpx.get(url), 404)["message"]


def test_n_pictures_equal_single_calls_with_their_seeds(client):
    many = generate(client, n=3, seed=5, response_format="b64_json").json()["data"]
    for one in many:
        alone = generate(client, seed=one["seed"], response_format="b64_json").json()["data"][0]
        assert np.array_equal(
            *(np.asarray(open_picture(base64.b64decode(x["b64_json"]))) for x in (one, alone))
        )


@pytest.mark.parametrize(
    ("size", "drawn"),
    [("256x256", 32), ("1024x1024", 32), ("16x16", 16), (None, 32), ("auto", 32)],
)
def test_sizes_are_those_asked_for_from_the_next_larger_drawn_one(client, size, drawn):
    data = generate(client, seed=1, size=size, response_format="b64_json").json()["data"][0]
    png = base64.b64decode(data["b64_json"])
    side = drawn if size in (None, "auto") else int(size.split("x")[0])
    assert open_picture(png).size == (side, side)
    provenance = read_provenance(png)
    assert provenance["size"] == [drawn, drawn]
    assert provenance.get("results", {}).get("resized") == (None if side == drawn else f"{side}x{side}")
    assert "trainedAlgorithmicMedia" in read_text(png)["XML:com.adobe.xmp"]


@pytest.mark.parametrize(
    ("body", "code", "param", "words"),
    [
        ({"prompt": None}, "missing_required_parameter", "prompt", "Missing required parameter: 'prompt'."),
        ({"prompt": 3}, "invalid_type", "prompt", "expected a string, but got an integer"),
        (
            {"prompt": "x" * 1001},
            None,
            "prompt",
            "Prompt must be length 1000 or less. Your prompt length is 1001.",
        ),
        ({"prompt": "  "}, "empty_string", "prompt", "empty"),
        ({"prompt": "\ud800"}, None, "prompt", "not valid Unicode"),
        ({"prompt": "a\0b"}, None, "prompt", "NUL"),
        ({"n": 0}, "integer_below_minimum_value", "n", "Expected a value >= 1, but got 0"),
        ({"n": 11}, "integer_above_maximum_value", "n", "Expected a value <= 10, but got 11"),
        ({"n": True}, "invalid_type", "n", "but got a boolean"),
        ({"n": 1.5}, "invalid_type", "n", "but got a number"),
        ({"n": [1]}, "invalid_type", "n", "but got an array"),
        ({"size": "300x200"}, "invalid_size", "size", "The size is not supported by this model."),
        ({"size": "20x20"}, "invalid_size", "size", "256x256"),
        ({"response_format": "jpg"}, "invalid_value", "response_format", "'url' and 'b64_json'"),
        ({"quality": "hd"}, "invalid_value", "quality", "'standard' and 'auto'"),
        ({"background": "transparent"}, "invalid_value", "background", "'auto' and 'opaque'"),
        ({"output_format": "webp"}, "invalid_value", "output_format", "'png'"),
        ({"partial_images": 4}, "integer_above_maximum_value", "partial_images", "<= 3"),
        ({"stream": "yes"}, "invalid_type", "stream", "a boolean"),
        ({"seed": -1}, "integer_below_minimum_value", "seed", ">= 0"),
        ({"steps": 0}, None, "steps", "steps"),
        ({"sampling": {"decoder": {"stepps": 3}}}, None, "sampling", "stepps"),
        ({"sampling": 3}, "invalid_type", "sampling", "an object"),
        ({"user": 3}, "invalid_type", "user", "a string"),
    ],
)
def test_refusals_name_the_field(client, body, code, param, words):
    given = {"prompt": "a red apple"} | body
    error = refused(client.post("/v1/images/generations", content=json.dumps(given)))
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]


def test_quality_standard_and_user_are_accepted_and_unknown_fields_named(client):
    answer = generate(
        client, quality="standard", user="u-1", style="vivid", moderation="low", **{"x\r\ny": 1}
    )
    assert answer.status_code == 200
    assert answer.headers["x-ignored-params"] == "moderation, style, x??y"


def test_extensions_reach_the_sampler(client):
    body = {"steps": 2, "guidance_scale": 3.5, "negative_prompt": "a blue cat", "prior_steps": 2, "seed": 3}
    data = generate(client, response_format="b64_json", **body).json()["data"][0]
    request = read_provenance(base64.b64decode(data["b64_json"]))["request"]
    assert request["sampling"]["decoder"]["steps"] == 2
    assert request["sampling"]["decoder"]["guidance"] == 3.5
    assert request["sampling"]["prior"]["steps"] == 2
    assert (request["negative"], request["seed"]) == ("a blue cat", 3)


def test_a_prompt_longer_than_the_context_says_so(client):
    data = generate(client, prompt="a red apple and two green cars " * 5).json()["data"][0]
    assert "words" in data["warnings"][0] or "tokens" in data["warnings"][0] or "cut" in data["warnings"][0]


def test_models_list_the_alias_with_what_it_stands_for(client):
    data = client.get("/v1/models").json()["data"]
    assert [(one["id"], one["owned_by"]) for one in data] == [
        ("tiny", "unclip"),
        ("dall-e-2", "unclip: another name of tiny"),
    ]
    assert client.get("/v1/models/dall-e-2").json() == data[1]
    error = refused(client.get("/v1/models/dall-e-3"), 404)
    assert error["code"] == "model_not_found"
    error = refused(generate(client, model="gpt-image-1"), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def post_edit(client, image, mask=None, kind="image/png", **fields):
    files = {"image": ("a.png", image, kind)} | ({"mask": ("m.png", mask, kind)} if mask else {})
    data = {"prompt": "a blue cat", "response_format": "b64_json"} | fields
    return client.post("/v1/images/edits", files=files, data=data)


def pixels_of(answer, index=0):
    assert answer.status_code == 200, answer.text
    data = base64.b64decode(answer.json()["data"][index]["b64_json"])
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA"))


def test_an_edit_keeps_opaque_pixels_and_draws_transparent_ones(client):
    hole = (4, 4, 20, 16)
    image, mask = png(), png(hole=hole)
    given = np.asarray(Image.open(io.BytesIO(image)).convert("RGBA"))
    answer = post_edit(client, image, mask, n="2", seed="1", size="32x32")
    for index in range(2):
        made = pixels_of(answer, index)
        inside = np.zeros((32, 32), bool)
        inside[4:16, 4:20] = True
        assert np.array_equal(made[~inside], given[~inside])
        assert not np.array_equal(made[inside], given[inside])
    compare = pixels_of(post_edit(client, png(hole=hole), seed="1", size="32x32"))
    assert np.array_equal(compare[~inside], given[~inside])


def test_partly_transparent_pixels_of_a_mask_are_kept(client):
    mask = np.full((32, 32, 4), 255, np.uint8)
    mask[:, :16, 3], mask[:, 16:, 3] = 0, 128
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    image = png()
    given = np.asarray(Image.open(io.BytesIO(image)).convert("RGBA"))
    made = pixels_of(post_edit(client, image, buffer.getvalue(), size="32x32"))
    assert np.array_equal(made[:, 16:], given[:, 16:])
    assert not np.array_equal(made[:, :16], given[:, :16])


def test_the_mask_wins_over_the_transparency_of_the_picture(client):
    image, mask = png(hole=(0, 0, 8, 8)), png(hole=(16, 16, 32, 32))
    made = pixels_of(post_edit(client, image, mask, size="32x32"))
    assert (made[:8, :8, 3] == 0).all()
    assert (made[16:, 16:, 3] == 255).all()


@pytest.mark.parametrize(
    ("image", "mask", "fields", "param", "words"),
    [
        (png(mode="RGB"), None, {}, "image", "format must be in ['RGBA', 'LA', 'L'], got RGB. Give a mask"),
        (png(), None, {}, "image", "no pixel of it is fully transparent, and no mask is given"),
        (png(), png((16, 16), hole=(0, 0, 4, 4)), {}, "mask", "the mask is 16x16 and the image 32x32"),
        (png(), png(), {}, "mask", "no pixel of it is fully transparent"),
        (png((32, 16), hole=(0, 0, 4, 4)), None, {}, "image", "square, and it is 32x16"),
        (b"GIF89a" + bytes(50), None, {}, "image", "must be a PNG, JPEG or WebP and less than 20 MB"),
        (png()[:60], None, {}, "image", "damaged"),
        (b"", None, {}, "image", "PNG"),
        (png(hole=(0, 0, 4, 4)), None, {"n": "two"}, "n", "expected an integer"),
        (png(hole=(0, 0, 4, 4)), None, {"n": "20"}, "n", "<= 10"),
        (png(hole=(0, 0, 4, 4)), None, {"prompt": "p" * 1001}, "prompt", "1001"),
    ],
    ids=[
        "opaque RGB", "opaque RGBA", "size of mask", "opaque mask", "not square", "GIF", "cut off", "empty", "n in words",
        "large n", "long prompt",
    ],
)  # fmt: skip
def test_edits_refused_with_the_remedy(client, image, mask, fields, param, words):
    error = refused(post_edit(client, image, mask, **fields))
    assert error["param"] == param
    assert words in error["message"]


def test_a_picture_that_is_not_square_with_fit(client):
    wide = png((32, 16), hole=(12, 4, 20, 12))
    assert pixels_of(post_edit(client, wide, fit="crop", size="16x16")).shape == (16, 16, 4)
    made = pixels_of(post_edit(client, png((32, 16)), fit="pad", size="32x32"))
    given = np.asarray(Image.open(io.BytesIO(png((32, 16)))).convert("RGBA"))
    assert np.array_equal(made[8:24], given)
    assert (made[..., 3] == 255).all()


def test_wrong_content_type_of_a_part(client):
    error = refused(post_edit(client, png(hole=(0, 0, 4, 4)), kind="text/html"))
    assert (error["code"], error["param"]) == ("unsupported_file_mimetype", "image")


@pytest.mark.parametrize("kind", ["application/octet-stream", "", "image/png"])
def test_pictures_are_known_by_their_bytes(client, kind):
    assert post_edit(client, png(hole=(0, 0, 4, 4)), kind=kind).status_code == 200


def test_image_list_of_one_is_accepted_and_of_two_refused(client):
    part = ("a.png", png(), "image/png")
    one = client.post("/v1/images/variations", files=[("image[]", part)])
    assert one.status_code == 200, one.text
    error = refused(client.post("/v1/images/variations", files=[("image[]", part), ("image[]", part)]))
    assert (error["code"], error["param"]) == ("invalid_type", "image")


@pytest.mark.parametrize("cut", [10, 200, 1500, -8, -3])
def test_a_form_that_is_cut_off_is_refused(client, cut):
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        + png()
        + b"\r\n--xyz--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=xyz"}
    error = refused(client.post("/v1/images/variations", content=body[:cut], headers=kind))
    assert error["code"] == "invalid_form"
    assert client.post("/v1/images/variations", content=body, headers=kind).status_code == 200


def test_variations_are_those_of_the_model(api, client):
    answer = client.post(
        "/v1/images/variations",
        files={"image": ("a.png", png(), "image/png")},
        data={"n": "2", "seed": "9", "size": "32x32", "response_format": "b64_json"},
    )
    expected = api.backend.model.vary(png(), n=2, seed=9, size=32)
    for index, one in enumerate(expected):
        assert np.array_equal(pixels_of(answer, index)[..., :3], np.asarray(one.image))
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(png())).convert("RGB").save(jpeg, format="JPEG")
    sent = {"image": ("a.jpg", jpeg.getvalue(), "image/jpeg")}
    assert client.post("/v1/images/variations", files=sent).status_code == 200
    error = refused(client.post("/v1/images/variations", data={"n": "1"}, files={"x": b"1"}))
    assert error["param"] == "x"
    error = refused(client.post("/v1/images/variations", files={"image": (None, "text")}))
    assert error["code"] == "missing_required_parameter"


def test_edits_as_json_take_data_urls_and_fetch_nothing(client):
    url = "data:image/png;base64," + base64.b64encode(png(hole=(0, 0, 8, 8))).decode()
    body = {"prompt": "a blue cat", "images": [{"image_url": url}], "size": "32x32"}
    assert client.post("/v1/images/edits", json=body).status_code == 200
    for bad in ("http://127.0.0.1:1/a.png", "file:///etc/passwd", "data:image/png;base64,!!!", "gopher://x"):
        error = refused(client.post("/v1/images/edits", json=body | {"images": [{"image_url": bad}]}))
        assert error["param"] == "images"
    error = refused(client.post("/v1/images/edits", json=body | {"images": [{"file_id": "f"}]}))
    assert "data: URL" in error["message"]


def events_of(answer):
    found = []
    for block in answer.text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            kind, data = lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))
            found.append((kind, data))
    return found


@pytest.mark.parametrize("partial", [0, 1, 3])
def test_streams_have_partial_images_then_the_picture(client, partial):
    answer = generate(client, stream=True, partial_images=partial, seed=4, size="32x32")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer)
    kinds = [kind for kind, _ in events]
    assert kinds == ["image_generation.partial_image"] * partial + ["image_generation.completed"]
    assert [data["partial_image_index"] for _, data in events[:-1]] == list(range(partial))
    for kind, data in events:
        assert data["type"] == kind
        assert open_picture(base64.b64decode(data["b64_json"])).size == (32, 32)
        assert data["size"] == "32x32"
    plain = generate(client, seed=4, size="32x32", response_format="b64_json").json()["data"][0]
    assert events[-1][1]["b64_json"] == plain["b64_json"]
    assert events[-1][1]["usage"]["total_tokens"] == 0


def test_streams_of_edits_and_of_several_pictures(client):
    answer = post_edit(client, png(hole=(0, 0, 8, 8)), stream="true", n="2", partial_images="1")
    kinds = [kind for kind, _ in events_of(answer)]
    assert kinds.count("image_edit.completed") == 2
    assert kinds.count("image_edit.partial_image") == 2
    answer = client.post(
        "/v1/images/variations", data={"stream": "true"}, files={"image": ("a.png", png(), "image/png")}
    )
    assert refused(answer)["param"] == "stream"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_cancels_its_job(api, client, stream):
    api.backend.hold.clear()
    done = threading.Event()

    def ask():
        short = httpx.Client(
            base_url=api.url, timeout=httpx.Timeout(5, read=0.5), headers=dict(client.headers)
        )
        with pytest.raises(httpx.ReadTimeout):
            generate(short, stream=stream)
        short.close()
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert done.wait(10)
    deadline = time.monotonic() + 5
    while not api.backend.ended and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(api.backend.ended.values()) == ["cancelled"]
    thread.join()


def test_an_error_in_the_middle_of_a_stream_is_an_event(assemble, tiny_model, run_server, monkeypatch):
    made = assemble(tiny_model)

    async def broken(job):
        raise MemoryError
        yield

    monkeypatch.setattr(made.backend, "events", broken)
    with run_server(made.app) as url, httpx.Client(base_url=url) as client:
        client.headers["Authorization"] = f"Bearer {made.key}"
        answer = generate(client, stream=True)
        assert answer.status_code == 200
        ((kind, data),) = events_of(answer)
        assert kind == "error"
        assert data["error"]["code"] == "unavailable"
        assert refused(generate(client), 503)["type"] == "server_error"


@pytest.fixture(scope="module")
def hasty(assemble, tiny_model, run_server):
    """A server that sends headers after a tenth of a second, and a sign of life as often."""
    made = assemble(tiny_model, header_seconds=0.1, ping_seconds=0.1)
    with run_server(made.app) as url, httpx.Client(base_url=url, timeout=60) as made.client:
        made.client.headers["Authorization"] = f"Bearer {made.key}"
        yield made


def test_a_slow_answer_sends_headers_first_and_is_still_json(hasty):
    hasty.backend.hold.clear()
    threading.Timer(0.8, hasty.backend.hold.set).start()
    answer = generate(hasty.client, n=2)
    assert answer.status_code == 200
    assert answer.text.startswith("    ")
    assert len(answer.json()["data"]) == 2
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_slow_stream_sends_comments(hasty):
    hasty.backend.hold.clear()
    threading.Timer(0.8, hasty.backend.hold.set).start()
    answer = generate(hasty.client, stream=True)
    assert answer.text.count(": ping\n\n") >= 3
    assert [kind for kind, _ in events_of(answer)] == ["image_generation.completed"]


def test_a_slow_answer_that_fails_ends_the_connection(hasty, monkeypatch):
    async def broken(job):
        await asyncio.sleep(0.5)
        raise MemoryError
        yield

    monkeypatch.setattr(hasty.backend, "events", broken)
    with pytest.raises(httpx.RemoteProtocolError):
        generate(hasty.client)


def test_a_client_that_leaves_a_slow_answer_cancels_its_job(hasty):
    hasty.backend.reset()
    hasty.backend.hold.clear()
    try:
        with hasty.client.stream("POST", "/v1/images/generations", json={"prompt": "a red apple"}) as answer:
            assert answer.status_code == 200
        deadline = time.monotonic() + 10
        while not hasty.backend.ended and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(hasty.backend.ended.values()) == ["cancelled"]
    finally:
        hasty.backend.hold.set()


def test_strict_refuses_what_dall_e_2_refused(assemble, tiny_model, run_server):
    made = assemble(tiny_model, strict=True)
    with run_server(made.app) as url, httpx.Client(base_url=url, timeout=60) as client:
        client.headers["Authorization"] = f"Bearer {made.key}"
        assert refused(generate(client, quality="standard"))["code"] == "unknown_parameter"
        assert refused(generate(client, size="64x64"))["code"] == "invalid_size"
        assert refused(generate(client, stream=True))["param"] == "stream"
        jpeg = io.BytesIO()
        Image.open(io.BytesIO(png())).convert("RGB").save(jpeg, format="JPEG")
        sent = {"image": ("a.png", jpeg.getvalue(), "image/png")}
        error = refused(client.post("/v1/images/variations", files=sent))
        assert error["message"] == "Uploaded image must be a PNG and less than 4 MB."
        error = refused(
            client.post("/v1/images/variations", files={"image": ("a", png(), "application/octet-stream")})
        )
        assert error["message"] == (
            "Invalid file 'image': unsupported mimetype ('application/octet-stream'). Supported file formats are "
            "'image/png'."
        )
        error = refused(
            client.post("/v1/images/variations", files=[("image[]", ("a.png", png(), "image/png"))])
        )
        assert error["message"] == "Invalid type for 'image': expected a file, but got an array instead."
        data = generate(client, response_format="b64_json").json()["data"][0]
        assert open_picture(base64.b64decode(data["b64_json"])).size == (1024, 1024)
