"""Pulling from a server that speaks the hub's protocol, on this machine: files, licence, resuming, and what goes wrong."""

import hashlib
import io
import json
import re
import resource
import shutil
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from huggingface_hub import constants

from unclip.checkpoints.hub import hub_cache, pulled
from unclip.cli.main import main
from unclip.errors import ModelError
from unclip.formats import pull as pulling
from unclip.formats.pull import cached, look_up, needed, pull, remove, verify_pulled
from unclip.formats.registry import resolve

SHA = "0123456789abcdef0123456789abcdef01234567"
NEWER = SHA[::-1]
ID = "someone/prior"
FILES = {
    "config.json": b'{"_class_name": "PriorTransformer", "additional_embeddings": 3}',
    "README.md": b"---\nlicense: creativeml-openrail-m\n---\n",
    "results/scores.json": b"{}",
    "diffusion_pytorch_model.safetensors": bytes(range(256)) * 400,
    "diffusion_pytorch_model.bin": b"pickle",
    "diffusion_pytorch_model.fp16.safetensors": b"half",
    "pictures/cat.png": b"no part of the model",
}


class Hub(BaseHTTPRequestHandler):
    """What the hub answers for one model, of which there may be several revisions, the last one the newest.

    With a `limit` the connection breaks off, once, after so many bytes of a file; the file `failing` is out of order.
    """

    revisions: ClassVar[dict[str, dict[str, bytes]]] = {}
    asked: ClassVar[list[tuple[str, str, str | None]]] = []
    limit: ClassVar[int | None] = None
    failing: ClassVar[str | None] = None

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        wanted = self.headers.get("Range")
        path = self.path.partition("?")[0]
        self.asked.append((self.command, path, wanted))
        if path == "/api/models/someone/gated":
            return self.empty(403, "GatedRepo")
        if path == f"/api/models/{ID}":
            card = {"license": "creativeml-openrail-m"}
            return self.json({"id": ID, "sha": [*Hub.revisions][-1], "cardData": card, "private": False})
        if path.startswith(f"/api/models/{ID}/tree/"):
            files = Hub.revisions[path.rpartition("/")[2]]
            return self.json([entry(name, data) for name, data in files.items()])
        found = re.fullmatch(rf"/{ID}/resolve/(\w+)/(.+)", path)
        if found is None or found[2] not in Hub.revisions[found[1]]:
            return self.empty(404, "RepoNotFound" if ID not in path else "EntryNotFound")
        revision, name = found.groups()
        data = Hub.revisions[revision][name]
        if name == Hub.failing and body:
            return self.empty(500)
        first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", revision)
        self.send_header("ETag", f'"{hash_of(name, data)}"')
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            cut = None if wanted or not name.endswith("safetensors") else Hub.limit
            self.wfile.write(data[first:][:cut])
            self.close_connection = cut is not None

    def empty(self, code: int, error: str = "") -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def json(self, data: Any) -> None:
        text = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def hash_of(name: str, data: bytes) -> str:
    """Large files are named by SHA-256, small ones as git names them."""
    if name.endswith(("safetensors", "bin")):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def entry(name: str, data: bytes) -> dict[str, Any]:
    sha = hash_of(name, data)
    made: dict[str, Any] = {"type": "file", "oid": sha[:40], "size": len(data), "path": name}
    if name.endswith(("safetensors", "bin")):
        made["lfs"] = {"oid": sha, "size": len(data), "pointerSize": 130}
    return made


@pytest.fixture
def endpoint(tmp_path, monkeypatch):
    """The server's address; the cache is empty, and the tests' ban on networks is lifted for this machine alone."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    Hub.asked.clear()
    Hub.revisions = {SHA: FILES}
    Hub.limit = Hub.failing = None
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


WANTED = ["README.md", "config.json", "diffusion_pytorch_model.safetensors", "results/scores.json"]
WEIGHTS = WANTED[2]


def test_one_copy_of_the_weights_is_needed():
    assert needed(FILES) == WANTED
    assert needed(["a/model.fp16.safetensors", "a/pytorch_model.bin"]) == ["a/model.fp16.safetensors"]
    assert needed(["pytorch_model.bin"]) == ["pytorch_model.bin"]
    assert needed(["x.ckpt", "a/flax_model.msgpack"]) == []
    # Shards belong together; a whole file is preferred to them, and full precision to half.
    shards = [f"a/model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    half = ["a/model.fp16-00001-of-00002.safetensors", "a/model-00001-of-00002.fp16.safetensors"]
    index = "a/model.safetensors.index.json"
    assert needed([*half, *shards, index, "a/pytorch_model.bin"]) == [*shards, index]
    assert needed([*half, "a/pytorch_model.bin"]) == sorted(half)
    assert needed([*shards, "a/model.safetensors"]) == ["a/model.safetensors"]
    # OpenCLIP's repositories hold transformers' weights too.
    assert needed(["open_clip_model.safetensors", "model.safetensors"]) == ["open_clip_model.safetensors"]
    assert needed(["open_clip_pytorch_model.bin", "model.safetensors"]) == ["model.safetensors"]
    ours = ["model.json", "clip.safetensors", "prior.safetensors", "tokenizer.json"]
    assert needed(ours) == sorted(ours)


def test_pull_verify_and_remove(endpoint):
    remote = look_up(ID, endpoint=endpoint)
    assert (remote.licence, remote.revision, sorted(remote.files)) == ("creativeml-openrail-m", SHA, WANTED)
    assert remote.size == sum(len(FILES[name]) for name in WANTED)
    folder = pull(remote, endpoint=endpoint)
    assert folder == resolve(ID) == pulled(ID)
    assert {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} == set(WANTED)
    assert all((folder / name).read_bytes() == FILES[name] for name in WANTED)
    assert cached() == {ID: folder}
    assert verify_pulled(ID) == len(WANTED)
    # A second time there is nothing to get.
    Hub.asked.clear()
    assert pull(remote, endpoint=endpoint) == folder
    assert not [path for method, path, _ in Hub.asked if method == "GET" and "/resolve/" in path]
    weights = (folder / WEIGHTS).resolve()
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.safetensors is damaged"):
        verify_pulled(ID)
    assert remove(ID) >= remote.size
    assert cached() == {}
    with pytest.raises(FileNotFoundError, match=r"someone/prior was not pulled"):
        remove(ID)


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [False, True])
def test_the_command_tells_size_and_licence_and_shows_how_far_it_is(endpoint, terminal, monkeypatch, capsys):
    # As the variable HF_ENDPOINT does, which the client reads once.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    screen = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    assert main(["models", "pull", ID]) == 0
    assert capsys.readouterr().out.strip() == str(pulled(ID))
    printed = screen.getvalue()
    assert f"unclip: {ID}: 4 files, 0.00 GB, licence creativeml-openrail-m" in printed
    assert ("100%" in printed) == terminal
    assert (main(["models", "pull", "someone/else"]), "the hub has no model" in screen.getvalue()) == (
        1,
        True,
    )


def test_a_broken_connection_goes_on_where_it_was(endpoint, monkeypatch):
    # The client keeps whole chunks only: of 10 MB, unless the test's file is to be cut in pieces too.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    Hub.limit = 60_000
    folder = pull(look_up(ID, endpoint=endpoint), endpoint=endpoint)
    assert (folder / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert asked_for(WEIGHTS) == [None, "bytes=60000-"]


def test_what_failed_is_never_half_there_and_the_rest_is_kept(endpoint):
    remote = look_up(ID, endpoint=endpoint)
    Hub.failing = WEIGHTS
    with pytest.raises(OSError, match="run the command again, which resumes"):
        pull(remote, endpoint=endpoint)
    nothing_is_there()
    Hub.failing = None
    Hub.asked.clear()
    folder = pull(remote, endpoint=endpoint)
    assert all((folder / name).read_bytes() == FILES[name] for name in WANTED)
    assert asked_for(WEIGHTS) == [None]


def nothing_is_there() -> None:
    """What was begun is no model: it is not found, not listed, and no file is cut short."""
    assert (pulled(ID), cached()) == (None, {})
    with pytest.raises(FileNotFoundError, match=f"unclip models pull {ID}"):
        resolve(ID)
    assert not list(hub_cache().rglob("*.incomplete"))
    assert not list(hub_cache().rglob(WEIGHTS))


def test_a_newer_version_takes_the_place_of_the_older_when_all_of_it_is_there(endpoint):
    older = pull(look_up(ID, endpoint=endpoint), endpoint=endpoint)
    Hub.revisions = {
        SHA: FILES,
        NEWER: FILES | {WEIGHTS: b"better", "config.json": FILES["config.json"] + b" "},
    }
    remote = look_up(ID, endpoint=endpoint)
    Hub.failing = WEIGHTS
    with pytest.raises(OSError, match="run the command again, which resumes"):
        pull(remote, endpoint=endpoint)
    assert pulled(ID) == older
    assert all((older / name).read_bytes() == FILES[name] for name in WANTED)
    assert verify_pulled(ID) == len(WANTED)
    Hub.failing = None
    newer = pull(remote, endpoint=endpoint)
    assert (newer.name, pulled(ID)) == (NEWER, newer)
    assert (newer / WEIGHTS).read_bytes() == b"better"
    assert (newer / "results" / "scores.json").resolve() == (older / "results" / "scores.json").resolve()


def test_a_newer_version_needs_room_for_what_is_new(endpoint, monkeypatch):
    pull(look_up(ID, endpoint=endpoint), endpoint=endpoint)
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(pulling.shutil, "disk_usage", lambda path: usage)
    card = {"README.md": b"---\nlicense: mit\n---\n"}
    Hub.revisions = {SHA: FILES, NEWER: FILES | card}
    newer = pull(look_up(ID, endpoint=endpoint), endpoint=endpoint)
    assert (newer.name, (newer / "README.md").read_bytes()) == (NEWER, card["README.md"])
    Hub.revisions = {NEWER: FILES, SHA: FILES | {WEIGHTS: bytes(2000)}}
    remove(ID)
    with pytest.raises(OSError, match="HF_HOME"):
        pull(look_up(ID, endpoint=endpoint), endpoint=endpoint)


def test_what_is_no_model_yet_can_be_removed(endpoint):
    Hub.failing = WEIGHTS
    with pytest.raises(OSError, match="run the command again, which resumes"):
        pull(look_up(ID, endpoint=endpoint), endpoint=endpoint)
    assert remove(ID) >= len(FILES["config.json"])
    assert not list(hub_cache().glob("models--*"))


def test_what_another_program_left_out_is_found(endpoint):
    """Others may name a revision before all of its files are there."""
    folder = pull(look_up(ID, endpoint=endpoint), endpoint=endpoint)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="holds no weights: get the model again"):
        verify_pulled(ID)


def asked_for(name: str) -> list[str | None]:
    """The ranges that were asked for of a file."""
    return [wanted for method, path, wanted in Hub.asked if method == "GET" and path.endswith(name)]


def test_no_room(endpoint, monkeypatch):
    remote = look_up(ID, endpoint=endpoint)
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(pulling.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"needs 0\.0 GB more.*HF_HOME"):
        pull(remote, endpoint=endpoint)
    assert cached() == {}


def test_a_disk_that_fills_up(endpoint):
    """No file may grow beyond what is allowed: to a program the same as a disk without room."""
    remote = look_up(ID, endpoint=endpoint)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"the disk is full.*HF_HOME"):
            pull(remote, endpoint=endpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    nothing_is_there()
    assert (pull(remote, endpoint=endpoint) / WEIGHTS).read_bytes() == FILES[WEIGHTS]


def test_no_such_model(endpoint):
    with pytest.raises(FileNotFoundError, match="the hub has no model 'someone/else'"):
        look_up("someone/else", endpoint=endpoint)
    with pytest.raises(PermissionError, match="someone/gated requires accepting its terms"):
        look_up("someone/gated", endpoint=endpoint)
    with pytest.raises(ModelError, match="not an id of the hub"):
        look_up("some one/else?", endpoint=endpoint)


def test_no_network(endpoint, tmp_path, monkeypatch):
    with pytest.raises(OSError, match="check the connection"):
        look_up(ID, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set"):
        look_up(ID, endpoint=endpoint)
    assert not (tmp_path / "cache").exists()
