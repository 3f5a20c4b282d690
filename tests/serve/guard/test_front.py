"""The whole server's settings: who may reach it."""

import json
import re
import urllib.error
import urllib.request

import pytest

pytest.importorskip("starlette", reason="the extra unclip[serve] is not installed")

from starlette.testclient import TestClient

from unclip.cli.main import main
from unclip.errors import RequestError
from unclip.images.files import open_picture
from unclip.serve.front import Access, front_app, read_secret
from unclip.serve.guard.keys import Keys

KEYS = Keys.of(["alice:alice-0123456789abcdef"])


def test_a_public_address_without_a_key_is_refused(settings, monkeypatch):
    monkeypatch.delenv("UNCLIP_API_KEYS", raising=False)
    with pytest.raises(RequestError, match="--insecure-no-auth"):
        front_app(settings, Access(host="0.0.0.0"))
    front_app(settings, Access(host="0.0.0.0", insecure=True))
    monkeypatch.setenv("UNCLIP_API_KEYS", "alice-0123456789abcdef")
    front_app(settings, Access(host="0.0.0.0"))


def test_wrong_settings_are_named(settings):
    with pytest.raises(RequestError, match="public URL"):
        Access(public_url="example.org")
    with pytest.raises(RequestError, match="no model of this server"):
        front_app(settings, Access(aliases={"gpt-image-1": "other"}))
    with pytest.raises(RequestError, match="is none"):
        front_app(settings, Access(origins=("*",))).build_middleware_stack()


def test_the_secret_is_made_once_and_closed_to_others(tmp_path, monkeypatch):
    monkeypatch.delenv("UNCLIP_SECRET", raising=False)
    secret = read_secret(tmp_path)
    assert len(secret) == 32
    assert read_secret(tmp_path) == secret
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("UNCLIP_SECRET", "x" * 16)
    assert read_secret(tmp_path) == b"x" * 16
    monkeypatch.setenv("UNCLIP_SECRET", "short")
    with pytest.raises(RequestError, match="16 or more"):
        read_secret(tmp_path)


def test_key_login_and_public_paths(settings):
    app = front_app(settings, keys=KEYS)
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/api/config").json()["key_required"] is True
        assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
        for path in ("/api/jobs", "/v1/models", "/metrics", "/api/system", "/api/events"):
            assert client.get(path).status_code == 401, path
        assert client.post("/api/login", json={"key": "alice-0123456789abcdef"}).status_code == 200
        assert client.get("/api/jobs").status_code == 200
        assert client.post("/api/logout").status_code == 200
        assert client.get("/api/jobs").status_code == 401


def test_without_keys_all_is_open_to_this_machine_alone(settings):
    app = front_app(settings, keys=Keys())
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/api/config").json()["key_required"] is False
        answer = client.get("/v1/models", headers={"Authorization": "Bearer anything"})
        assert [one["id"] for one in answer.json()["data"]] == ["tiny", "dall-e-2"]
        answer = client.get("/api/config", headers={"Host": "rebound.example"})
        assert answer.status_code == 421


def test_aliases_and_the_public_url(settings):
    access = Access(aliases={"gpt-image-1": ""}, public_url="https://pictures.example/")
    with TestClient(front_app(settings, access, keys=Keys()), base_url="http://pictures.example") as client:
        body = {"prompt": "a red apple", "model": "gpt-image-1", "n": 2}
        answer = client.post("/v1/images/generations", json=body)
        assert answer.status_code == 200, answer.text
        for one in answer.json()["data"]:
            assert re.fullmatch(r"https://pictures\.example/v1/files/images/[\w-]{54}\.png", one["url"])
            assert client.get(one["url"].removeprefix("https://pictures.example")).status_code == 200
        jobs = client.get("/api/jobs").json()["items"]
        assert [(job["kind"], job["n"], job["state"]) for job in jobs] == [("generate", 2, "done")]


def test_the_command_refuses_a_public_address_without_a_key(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("UNCLIP_API_KEYS", raising=False)
    monkeypatch.delenv("UNCLIP_API_KEY_FILE", raising=False)
    for arguments, words in [
        (["--host", "0.0.0.0"], "--insecure-no-auth"),
        (["--host", "::"], "--insecure-no-auth"),
        (["--api-keys", str(tmp_path / "none")], "cannot be read"),
        (["--rate", "0"], "lets nobody in"),
        (["--public-url", "example.org"], "https://example.org"),
        (["--alias", "gpt-image-1=other"], "no model of this server"),
    ]:
        assert main(["serve", "--port", "0", "--folder", str(tmp_path / "data"), *arguments]) != 0
        assert words in capsys.readouterr().err


def test_the_command_serves_behind_a_key(load_helper, tmp_path, tiny_folder, own_key):
    keys = tmp_path / "keys"
    keys.write_text(f"alice:{own_key}\n")
    keys.chmod(0o600)
    more = ["--api-keys", str(keys), "--alias", "gpt-image-1"]
    with load_helper("processes").Server(tmp_path / "server", tiny_folder, *more) as server:
        body = json.dumps({"prompt": "a red apple", "model": "gpt-image-1", "size": "256x256"}).encode()
        request = urllib.request.Request(f"{server.url}/v1/images/generations", data=body)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request, timeout=60)
        request.add_header("Authorization", f"Bearer {own_key}")
        with urllib.request.urlopen(request, timeout=120) as answer:
            url = json.load(answer)["data"][0]["url"]
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert open_picture(answer.read()).size == (256, 256)
