"""Official clients of OpenAI, 2022 to 2026, run scripts of their time against this server."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.images.files import open_picture
from unclip.images.metadata import read_provenance

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def installed(load_helper):
    return load_helper("openai/installed")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder with a picture, a mask whose upper half is transparent, and an opaque picture."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(folder / "picture.png")
    Image.fromarray(pixels[..., :3]).save(folder / "opaque.png")
    pixels[:32, :, 3] = 0
    Image.fromarray(pixels).save(folder / "mask.png")
    return folder


@pytest.fixture(scope="session")
def limited(serve):
    """A server that lets one request a second pass."""
    with serve(rate=60, burst=1) as running:
        yield running


def run(api, *command, cwd=None) -> dict:
    """What a script printed, run with the key and the address of the server in the environment."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "OPENAI_API_KEY": api.key,
        "OPENAI_API_BASE": f"{api.url}/v1",
        "OPENAI_BASE_URL": f"{api.url}/v1",
        "no_proxy": "127.0.0.1",
    }
    done = subprocess.run(
        [str(part) for part in command], env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def picture_of(text: str) -> Image.Image:
    return open_picture(base64.b64decode(text))


def check_pictures(found: dict) -> None:
    """What all scripts have in common: two pictures by URL, an edit, variations."""
    assert found["count"] == 2
    assert picture_of(found["url"]).size == (256, 256)
    assert read_provenance(base64.b64decode(found["url"]))["request"]["prompt"] == "a red apple"
    edit = read_provenance(base64.b64decode(found["edit"]))
    assert (edit["request"]["kind"], edit["size"], len(edit["sources"])) == ("edit", [64, 64], 2)
    assert picture_of(found["edit"]).size == (256, 256)


ERRORS = {
    "long": (400, None, "prompt", "Your prompt length is 1192"),
    "size": (400, "invalid_size", "size", "not supported by this model"),
    "opaque": (400, None, "image", "got RGB"),
    "text": (400, "invalid_image", "image", "must be a PNG"),
    "model": (404, "model_not_found", "model", "`dall-e-3` does not exist"),
    "key": (401, "invalid_api_key", None, "Incorrect API key provided"),
}


def test_python_0_27(server, pictures, installed):
    python = installed.python_client("0.27.0")
    found = run(server, python, HERE / "clients" / "python_2022.py", pictures)
    check_pictures(found)
    assert picture_of(found["b64"]).size == picture_of(found["async"]).size == (256, 256)
    assert len(found["variations"]) == 2
    assert found["models"] == ["tiny", "dall-e-2"]
    classes = {"key": "AuthenticationError"}
    assert set(found["errors"]) == set(ERRORS) - {"model"}
    for name, got in found["errors"].items():
        status, code, param, words = ERRORS[name]
        assert got["class"] == classes.get(name, "InvalidRequestError")
        assert (got["status"], got["error"]["code"], got["error"]["param"]) == (status, code, param)
        assert words in got["error"]["message"]
        assert got["id"].isalnum()


def test_command_line_of_python_0_27(server, installed):
    python = installed.python_client("0.27.0")
    environment = os.environ | {"OPENAI_API_KEY": server.key, "OPENAI_API_BASE": f"{server.url}/v1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [
            str(python.parent / "openai"),
            "api",
            "image.create",
            "-p",
            "a red apple",
            "-n",
            "1",
            "-s",
            "256x256",
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"][0]["url"].startswith(server.url)


@pytest.mark.parametrize("version", ["1.1.0", "1.109.1", "2.54.0", "3.57.0"])
def test_python(server, limited, pictures, installed, version):
    python = installed.python_client(version)
    streams = () if version == "1.1.0" else ("stream",)
    found = run(
        server, python, HERE / "clients" / "python_client.py", pictures, f"{limited.url}/v1", *streams
    )
    check_pictures(found)
    assert isinstance(found["seed"], int)
    assert read_provenance(base64.b64decode(found["b64"]))["request"]["seed"] == 5
    assert len(set(found["variations"].values())) == 1
    assert set(found["variations"]) == {"bytes", "open", "stream", "path", "tuple"}
    assert all(picture_of(one).size == (256, 256) for one in found["async"])
    raw = found["raw"]
    assert raw["id"].isalnum()
    assert int(raw["milliseconds"]) > 0
    assert (raw["version"], raw["parsed"]) == ("2020-10-01", 1)
    if version != "1.1.0":
        assert found["request_id"].isalnum()
    assert (found["models"], found["model"]) == (["tiny", "dall-e-2"], "dall-e-2")
    classes = {401: "AuthenticationError", 404: "NotFoundError", 400: "BadRequestError"}
    assert set(found["errors"]) == set(ERRORS)
    for name, got in found["errors"].items():
        status, code, param, words = ERRORS[name]
        assert (got["class"], got["status"]) == (classes[status], status)
        assert (got["code"], got["param"], got["type"]) == (code, param, "invalid_request_error")
        assert words in got["message"]
        assert got["id"].isalnum()
    # The second call waited for the second that Retry-After asked for.
    assert 0.9 < found["retried"] < 30
    assert found["limited"] == "1"
    if streams:
        kinds = [
            "image_generation.partial_image",
            "image_generation.partial_image",
            "image_generation.completed",
        ]
        assert [kind for kind, _, _ in found["stream"]] == kinds
        assert [index for _, index, _ in found["stream"]][:2] == [0, 1]
        assert all(length > 100 for _, _, length in found["stream"])
        assert found["usage"] == 0
        assert found["async_stream"] == kinds[1:]
        assert found["edit_stream"] == ["image_edit.completed"]
        assert found["list"] == 1


def node(api, installed, script, *arguments):
    """What a script printed, run beside the installed packages, where Node looks for them."""
    program, folder = installed.node_clients()
    shutil.copy(HERE / "clients" / script, folder / script)
    return run(api, program, folder / script, *arguments, cwd=folder)


def test_node_3(server, pictures, installed):
    found = node(server, installed, "node_2022.mjs", "openai3", pictures)
    check_pictures(found)
    assert picture_of(found["variations"]["stream"]).size == (256, 256)
    assert (found["error"]["status"], found["error"]["param"]) == (400, "prompt")


@pytest.mark.parametrize("name", ["openai4", "openai7"])
def test_node(server, limited, pictures, installed, name):
    streams = "stream" if name == "openai7" else "none"
    found = node(server, installed, "node_client.mjs", name, pictures, f"{limited.url}/v1", streams)
    check_pictures(found)
    assert set(found["variations"]) == {"stream", "buffer", "untyped"}
    assert all(picture_of(one).size == (256, 256) for one in found["variations"].values())
    assert found["request_id"].isalnum()
    assert found["raw"]["id"].isalnum()
    assert found["models"] == ["tiny", "dall-e-2"]
    classes = {401: "AuthenticationError", 404: "NotFoundError", 400: "BadRequestError"}
    assert set(found["errors"]) == set(ERRORS)
    for kind, got in found["errors"].items():
        status, code, param, words = ERRORS[kind]
        assert (got["class"], got["status"]) == (classes[status], status)
        assert (got["code"], got["param"]) == (code, param)
        assert words in got["message"]
    assert 0.9 < found["retried"] < 30
    if name == "openai7":
        assert found["stream"] == [
            "image_generation.partial_image",
            "image_generation.partial_image",
            "image_generation.completed",
        ]
