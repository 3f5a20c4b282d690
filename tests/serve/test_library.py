"""Library by HTTP: files, search, ancestry, collections, deletes with undo, canvases, and provenance of dropped files."""

import dataclasses
import json
import shlex
import zipfile
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from starlette.testclient import TestClient

from tests.serve.test_jobs import EVERY_KIND
from unclip.cli.main import build_parser
from unclip.images import read_provenance, read_text
from unclip.images.metadata import XMP_KEY
from unclip.serve.reuse import commands, read_picture


def draw(client: TestClient, finished, request: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    answer = client.post("/api/jobs", json={"request": request, **more})
    assert answer.status_code == 201, answer.text
    done = finished(answer.json()["id"])
    assert done["state"] == "done", done
    return done["pictures"]


def test_search_filters_and_pages(client: TestClient, finished):
    for prompt in ("a red apple", "a blue cat", "two green cars"):
        draw(client, finished, {"kind": "generate", "prompt": prompt, "n": 2})
    page = client.get("/api/pictures?limit=4").json()
    rest = client.get("/api/pictures", params={"limit": 4, "cursor": page["next"]}).json()
    assert (page["total"], len(page["items"]), len(rest["items"]), rest["next"]) == (6, 4, 2, None)
    assert len({one["id"] for one in page["items"] + rest["items"]}) == 6
    assert client.get("/api/pictures?query=CAT blue").json()["total"] == 2
    assert client.get("/api/pictures?query=100%25").json()["total"] == 0
    assert client.get("/api/pictures?size=32&kind=generate&model=tiny").json()["total"] == 6
    assert client.get("/api/pictures?size=16").json()["total"] == 0
    id = page["items"][0]["id"]
    changed = client.patch(f"/api/pictures/{id}", json={"starred": True, "title": "Best of all"}).json()
    assert (changed["starred"], changed["title"]) == (True, "Best of all")
    assert [one["id"] for one in client.get("/api/pictures?starred=true").json()["items"]] == [id]
    assert client.get("/api/pictures?query=best").json()["total"] == 1


def test_files_have_fixed_types_and_thumbnails_are_small(client: TestClient, finished):
    (picture,) = draw(client, finished, {"kind": "generate", "prompt": "a red apple"})
    answer = client.get(picture["url"])
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'"
    assert client.get(picture["url"], headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    small = client.get(picture["thumbnail_url"] + "?side=16")
    assert Image.open(BytesIO(small.content)).size == (16, 16)
    assert client.get(picture["thumbnail_url"] + "?side=99999").status_code == 400
    assert client.get("/api/pictures/..%2f..%2fetc/file").status_code == 404


def test_deleted_picture_comes_back(client: TestClient, finished):
    (picture,) = draw(client, finished, {"kind": "generate", "prompt": "a red apple"})
    url = f"/api/pictures/{picture['id']}"
    assert client.delete(url).status_code == 204
    assert client.get("/api/pictures").json()["total"] == 0
    assert client.get("/api/pictures?deleted=true").json()["total"] == 1
    assert client.post(url + "/restore").json()["deleted"] is None
    assert client.get("/api/pictures").json()["total"] == 1
    assert client.get(picture["url"]).status_code == 200


def test_lineage_from_a_variation_of_a_variation(client: TestClient, finished):
    (first,) = draw(client, finished, {"kind": "generate", "prompt": "a red apple"})
    (second,) = draw(client, finished, {"kind": "vary", "n": 1}, sources={"picture": first["id"]})
    (third,) = draw(client, finished, {"kind": "vary", "n": 1}, sources={"picture": second["id"]})
    assert second["sources"] == [{"role": "picture", "picture": first["id"]}]
    family = client.get(f"/api/pictures/{second['id']}/lineage").json()
    assert [one["id"] for one in family["ancestors"]] == [first["id"]]
    assert [one["id"] for one in family["children"]] == [third["id"]]
    up = client.get(f"/api/pictures/{third['id']}/lineage").json()["ancestors"]
    assert [one["id"] for one in up] == [second["id"], first["id"]]


def test_collections_hold_pictures(client: TestClient, finished):
    made = client.post("/api/collections", json={"name": " Fruit "}).json()
    assert (made["name"], made["count"]) == ("Fruit", 0)
    request = {"kind": "generate", "prompt": "a red apple", "n": 2}
    first, second = draw(client, finished, request, collection=made["id"])
    assert first["collections"] == [made["id"]]
    assert client.get(f"/api/pictures?collection={made['id']}").json()["total"] == 2
    member = f"/api/collections/{made['id']}/pictures/{second['id']}"
    assert client.delete(member).status_code == 204
    assert client.get("/api/collections").json()["items"][0]["count"] == 1
    assert client.put(member).status_code == client.put(member).status_code == 204
    assert client.patch(f"/api/collections/{made['id']}", json={"name": "Food"}).json()["name"] == "Food"
    assert client.patch(f"/api/collections/{made['id']}", json={"name": " "}).status_code == 400
    assert client.delete(f"/api/collections/{made['id']}").status_code == 204
    assert client.get(f"/api/pictures/{first['id']}").json()["collections"] == []


def test_zip_holds_files_and_their_list(client: TestClient, finished):
    pictures = draw(client, finished, {"kind": "generate", "prompt": "a red apple", "n": 2})
    ids = [one["id"] for one in pictures]
    answer = client.post("/api/pictures/zip", json={"ids": ids})
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*(f"{id}.png" for id in ids), "pictures.json"]
        assert archive.read(f"{ids[0]}.png") == client.get(pictures[0]["url"]).content
        assert [one["id"] for one in json.loads(archive.read("pictures.json"))] == ids
    assert client.post("/api/pictures/zip", json={"ids": []}).status_code == 400
    assert client.post("/api/pictures/zip", json={"ids": ["../x"]}).status_code == 404


def test_canvas_is_kept_under_its_own_id(client: TestClient):
    id = "11111111-2222-3333-4444-555555555555"
    body = {"name": "sea", "width": 64, "height": 32, "state": {"layers": [1, 2]}}
    for width in (64, 96):
        assert client.put(f"/api/canvases/{id}", json={**body, "width": width}).json()["width"] == width
    assert client.get(f"/api/canvases/{id}").json()["state"] == {"layers": [1, 2]}
    assert [one["id"] for one in client.get("/api/canvases").json()["items"]] == [id]
    assert client.put(f"/api/canvases/{id}", json={**body, "state": "x" * 300_000}).status_code == 400
    assert client.delete(f"/api/canvases/{id}").status_code == 204
    assert client.get(f"/api/canvases/{id}").status_code == 404
    assert client.post("/api/canvases", json=body).status_code == 201


def test_dropped_picture_gives_its_request_back(client: TestClient, finished):
    (picture,) = draw(client, finished, {"kind": "generate", "prompt": "a red apple", "seed": 7})
    data = client.get(picture["url"]).content
    found = client.post("/api/read", content=data).json()
    assert (found["source"], found["request"]["seed"]) == ("unclip", 7)
    assert found["request"] == picture["request"]
    uploaded = client.post("/api/uploads", content=data).json()
    assert uploaded["request"] == picture["request"]
    # The given picture keeps its pixels and its provenance, and nothing else of its file.
    kept = client.get(f"/api/uploads/{uploaded['id']}/file").content
    assert Image.open(BytesIO(kept)).tobytes() == Image.open(BytesIO(data)).tobytes()
    assert read_provenance(kept) == read_provenance(data)
    assert set(read_text(data)) - set(read_text(kept)) == {"parameters", XMP_KEY}


def png(**text: str) -> bytes:
    info, buffer = PngImagePlugin.PngInfo(), BytesIO()
    for name, value in text.items():
        info.add_text(name, value)
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def test_pictures_of_other_programs_give_what_fits():
    lines = "a cat, (blue:1.2)\nNegative prompt: dog\nSteps: 28, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Model: dreams"
    found = read_picture(png(parameters=lines))
    assert found["source"] == "a1111"
    assert found["request"]["prompt"] == "a cat, (blue:1.2)"
    assert (found["request"]["negative"], found["request"]["seed"]) == ("dog", 42)
    assert found["request"]["sampling"]["decoder"] == {"steps": 28, "guidance": 7.5, "sampler": "ddpm"}
    assert "dreams" in found["warnings"][-1]
    graph = {"3": {"inputs": {"text": "a long prompt"}}, "4": {"inputs": {"text": "no"}}}
    assert read_picture(png(prompt=json.dumps(graph)))["request"]["prompt"] == "a long prompt"


def test_picture_may_come_in_a_form(client: TestClient):
    answer = client.post("/api/uploads", files={"image": ("../../x.png", png(), "text/html")})
    assert answer.status_code == 201, answer.text
    assert client.post("/api/uploads", files={"other": ("x.png", png())}).status_code == 400


def test_picture_without_a_record_is_refused(client: TestClient):
    answer = client.post("/api/read", content=png())
    assert answer.status_code == 400
    assert "records nothing" in answer.json()["error"]["message"]
    assert client.post("/api/read", content=b"<svg/>").status_code == 400
    assert client.post("/api/uploads", content=b"").status_code == 400


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_commands_are_ones_that_the_command_line_takes(kind: str):
    fields, _ = EVERY_KIND[kind]
    fields = {**fields, "prompt": "a red apple"} if "prompt" in fields else fields
    request = {
        "kind": kind,
        "seed": 3,
        **fields,
        "sampling": {"decoder": {"steps": 7}, "upsamplers": [{"steps": 2}]},
    }
    if kind == "upscale":
        request["sampling"] = {"upsamplers": [{"steps": 2}]}
    found = commands(request, "tiny", "http://127.0.0.1:1")
    words = shlex.split(found["cli"])
    arguments = build_parser(words[1]).parse_args(words[1:])
    assert arguments.seed == 3
    assert json.loads(found["json"]) == request
    compile(found["python"], "python", "exec")
    assert kind in found["curl"]


@pytest.mark.parametrize("text", ["-5 degrees", "--model", "-x", "a $(b) 'c'", "two\nlines"])
def test_commands_of_text_that_looks_like_an_option(text: str):
    for kind, sources in (("generate", 0), ("edit", 1), ("text_diff", 1)):
        name = "target" if kind == "text_diff" else "prompt"
        request = {"kind": kind, name: text, "seed": 3, **({"negative": text} if kind != "text_diff" else {})}
        words = shlex.split(commands(request, "tiny", "http://127.0.0.1:1")["cli"])
        arguments = vars(build_parser(words[1]).parse_args(words[1:]))
        assert [text] in [value if isinstance(value, list) else [value] for value in arguments.values()]
        assert arguments["seed"] == 3
        assert arguments.get("negative", text) == text
        assert (
            sum(str(value) in ("PICTURE.png", "[PosixPath('PICTURE.png')]") for value in arguments.values())
            == sources
        )


def test_old_jobs_are_forgotten_and_their_pictures_kept(client: TestClient, finished):
    (picture,) = draw(client, finished, {"kind": "generate", "prompt": "a red apple"})
    (variation,) = draw(client, finished, {"kind": "vary", "n": 1}, sources={"picture": picture["id"]})
    client.post("/api/queue/pause")
    waiting = client.post("/api/jobs", json={"request": {"kind": "generate", "prompt": "x"}}).json()["id"]
    service: Any = client.app.state.service
    service.library.clean()
    assert client.get(f"/api/jobs/{picture['job']}").status_code == 200
    service.library.settings = dataclasses.replace(service.settings, keep_days=0.0)
    service.library.clean()
    assert client.get(f"/api/jobs/{picture['job']}").status_code == 404
    assert [job["id"] for job in client.get("/api/jobs").json()["items"]] == [waiting]
    with service.database.read() as connection:
        assert connection.exec_driver_sql("SELECT DISTINCT job FROM tasks").scalars().all() == [waiting]
    kept = client.get("/api/pictures").json()
    assert {one["id"] for one in kept["items"]} == {picture["id"], variation["id"]}
    for one in (picture, variation):
        assert client.get(one["url"]).status_code == 200
        assert client.get(f"/api/pictures/{one['id']}/commands").status_code == 200
    (parent,) = client.get(f"/api/pictures/{variation['id']}/lineage").json()["ancestors"]
    assert parent["id"] == picture["id"]


def test_canvas_that_was_saved_elsewhere_is_not_lost(client: TestClient):
    url = "/api/canvases/00000000-0000-4000-8000-000000000001"
    body = {"width": 8, "height": 8, "state": 1}
    first = client.put(url, json=body).json()
    second = client.put(url, json={**body, "state": 2, "seen": first["updated"]}).json()
    assert second["updated"] > first["updated"]
    answer = client.put(url, json={**body, "state": 3, "seen": first["updated"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "canvas_changed")
    assert client.get(url).json()["state"] == 2
    # Who does not say what was seen replaces it, as programs did before.
    assert client.put(url, json={**body, "state": 4}).json()["state"] == 4


def test_captions_are_ranked(client: TestClient, finished):
    (picture,) = draw(client, finished, {"kind": "generate", "prompt": "a red apple"})
    body = {"ids": [picture["id"]], "captions": ["a red apple", "a blue cat"]}
    (item,) = client.post("/api/pictures/captions", json=body).json()["items"]
    assert sum(one["probability"] for one in item["captions"]) == pytest.approx(1)
    known = client.post("/api/pictures/captions", json={"ids": [picture["id"]]}).json()["items"][0][
        "captions"
    ]
    assert [one["caption"] for one in known] == ["a red apple"]
