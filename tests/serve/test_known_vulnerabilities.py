"""Vulnerabilities that were published for other image servers, and for the libraries of this one, by their numbers.

Each test tries what the advisory describes against the whole server: its own API and the compatible one.
"""

import importlib.metadata
import io
import json
import os
import pickle
import re
import socket
import struct
import tarfile
import threading
import time
import tomllib
import zlib
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

from unclip.errors import ModelError
from unclip.formats.pull import needed
from unclip.generate.model import Model
from unclip.images.files import open_picture
from unclip.serve.guard.keys import Keys

ROOT = Path(__file__).parent.parent.parent
ID = "01234567-89ab-cdef-0123-456789abcdef"


def cases(*numbers: str):
    """One test for each advisory of a kind."""
    return pytest.mark.parametrize("number", numbers)


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(
        base_url=server.url,
        headers={"Authorization": f"Bearer {server.key}"},
        timeout=60,
        follow_redirects=False,
    ) as client:
        yield client


@pytest.fixture(scope="module")
def picture() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    pixels[..., 3], pixels[:8, :8, 3] = 255, 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def drawn(http) -> str:
    """Id of a picture of the library."""
    http.post("/v1/images/generations", json={"prompt": "a red apple"}).raise_for_status()
    return http.get("/api/pictures").json()["items"][0]["id"]


def refused(answer, *statuses: int) -> None:
    """Whether an answer is an error in the one shape, and no word of the machine."""
    assert answer.status_code in (statuses or (400, 404, 405)), answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "root:x:0" not in answer.text


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


NAMES = [
    "../../evil.png", "..\\..\\evil.png", "/tmp/unclip-evil.png", "C:\\evil.png", "evil.html", "evil.svg", "evil.py",
    "....//evil.png", "%2e%2e%2fevil.png", "a/../../evil.png", "evil.png\x00.py", "custom_nodes/evil/__init__.py",
]  # fmt: skip


@cases(
    "CVE-2024-31462", "CVE-2025-67303", "CVE-2024-21575", "CVE-2026-123790", "InvokeAI-6.13.8",
)  # fmt: skip
def test_no_upload_chooses_where_it_is_written(http, server, picture, number):
    outside = Path("/tmp/unclip-evil.png")
    for name in NAMES:
        part = {"image": (name, picture, "image/png")}
        answer = http.post("/v1/images/variations", files=part, data={"size": "16x16"})
        assert answer.status_code in (200, 400)
    http.post(
        "/api/uploads",
        content=picture,
        headers={"Content-Disposition": "attachment; filename=../../evil.png"},
    )
    own = re.compile(
        r"(pictures/(uploads|pictures)/[0-9a-f]{2}/[0-9a-f-]{36}\.png|unclip\.db(-wal|-shm)?|secret|unclip\.\w+)"
    )
    assert [name for name in files_of(server.folder) if not own.fullmatch(name)] == []
    assert not outside.exists()
    assert not (server.folder.parent / "evil.png").exists()


TRAVERSALS = [
    "../../secret", "..%2f..%2fsecret", "..%5c..%5csecret", "....//....//secret", "%2e%2e/%2e%2e/secret", "..%252f..%252fsecret",
    "/etc/passwd", "%2fetc%2fpasswd", "..%c0%af..%c0%afsecret", "C:%5csecret", "..;/secret", "secret%00.png", "file:///etc/passwd",
    f"{ID}/../../../secret", "~root", ".", "..", "%00", "\u2025/secret",
]  # fmt: skip


@cases(
    "CVE-2026-56671", "CVE-2026-56673", "CVE-2025-6237", "CVE-2024-11042", "CVE-2023-51449", "CVE-2024-1561",
    "CVE-2024-1728", "CVE-2026-28414", "CVE-2026-48545", "CVE-2026-119979-server",
)  # fmt: skip
def test_no_path_leads_out_of_the_store(server, number):
    address, port = server.url.removeprefix("http://").split(":")
    secret = (server.folder / "secret").read_bytes()
    places = ["/api/pictures/{}/file", "/api/pictures/{}", "/api/uploads/{}/file", "/api/jobs/{}", "/v1/files/images/{}",
              "/api/pictures/{}/thumbnail", "/assets/{}", "/{}", "/file={}", "/api/canvases/{}", "/v1/models/{}"]  # fmt: skip
    methods = ("GET", "DELETE") if number in ("CVE-2025-6237", "CVE-2024-11042") else ("GET",)
    for method in methods:
        for place in places:
            for text in TRAVERSALS:
                with socket.create_connection((address, int(port)), timeout=20) as connection:
                    path = place.format(text).encode()
                    connection.sendall(
                        method.encode()
                        + b" "
                        + path
                        + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                        b"Authorization: Bearer " + server.key.encode() + b"\r\n\r\n"
                    )
                    answer = b""
                    while part := connection.recv(65536):
                        answer += part
                status = int(answer.split(b" ")[1])
                assert status < 500
                assert secret not in answer
                assert b"root:x:0" not in answer
                if method == "DELETE" or place != "/{}":
                    assert status in (400, 401, 404, 405, 204, 200, 307)
    assert (server.folder / "secret").read_bytes() == secret
    assert (server.folder / "unclip.db").exists()


@cases(
    "CVE-2024-10935", "CVE-2024-10821", "CVE-2024-53981", "CVE-2026-24486", "CVE-2026-40347", "PYSEC-2026-248"
)
def test_boundaries_and_parts_do_not_slow_the_server_down(http, number):
    """Bytes after the last boundary, long boundaries, thousands of headers and parts, no end."""
    kind = {"Content-Type": "multipart/form-data; boundary=xyz"}
    bodies = {
        "CVE-2024-10935": b"--xyz" + b"-" * 1_500_000,
        "CVE-2024-10821": b"--xyz--" + b"\r\n" * 700_000,
        "CVE-2024-53981": b"\r\n" * 700_000 + b"--xyz--\r\n",
        "CVE-2026-24486": b'--xyz\r\nContent-Disposition: form-data; name="a"; filename="'
        + b"a" * 1_000_000
        + b'"\r\n\r\n',
        "CVE-2026-40347": b"--xyz\r\n" + b"a: b\r\n" * 200_000 + b"\r\n",
        "PYSEC-2026-248": b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 20_000,
    }
    began = time.monotonic()
    refused(http.post("/v1/images/variations", content=bodies[number], headers=kind))
    # The other requests are not held up either.
    assert http.get("/healthz").status_code == 200
    assert time.monotonic() - began < 10


@cases("CVE-2026-42561", "PYSEC-2026-249", "CVE-2024-11043")
def test_forms_of_many_fields_are_refused(http, number):
    fields = b"".join(
        b'--xyz\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n' % i for i in range(20_000)
    )
    kind = {"Content-Type": "multipart/form-data; boundary=xyz"}
    refused(http.post("/v1/images/edits", content=fields + b"--xyz--\r\n", headers=kind))
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    refused(http.post("/v1/images/edits", content=b"&".join([b"a=1"] * 100_000), headers=kind))
    name = {"name": "x" * 500_000}
    assert http.post("/api/collections", json=name).status_code in (400, 413)


@cases("CVE-2024-11044", "CVE-2026-28415", "CVE-2026-59806")
def test_no_redirect_leads_to_another_site(http, number):
    for path in ["//evil.example", "/\\evil.example", "/%2f%2fevil.example", "/file=https://evil.example",
                 "/https://evil.example", "//evil.example/%2e%2e", "/login?next=https://evil.example", "/v1/models//evil.example/",
                 "/api/jobs/", "/assets//evil.example"]:  # fmt: skip
        answer = http.get(httpx.URL(str(http.base_url).rstrip("/") + path))
        location = answer.headers.get("location", "")
        assert not location.startswith(("//", "https:", "/\\"))
        assert "evil" not in location.split("/")[2:3]


@cases("CVE-2024-11045")
def test_no_other_site_opens_a_websocket(server, number):
    address, port = server.url.removeprefix("http://").split(":")
    for path in (b"/", b"/api/events", b"/queue/join", b"/v1/models"):
        with socket.create_connection((address, int(port)), timeout=20) as connection:
            connection.sendall(
                b"GET "
                + path
                + b" HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert b" 101 " not in connection.recv(10_000).split(b"\r\n")[0]


SCRIPT = "<img src=x onerror=alert(1)><script>alert(1)</script>"


@cases("CVE-2024-10099", "CVE-2026-56670", "CVE-2026-56672", "CVE-2026-111984", "CVE-2026-49119")
def test_nothing_that_was_uploaded_runs_in_a_browser(http, picture, drawn, number):
    for data, kind in [
        (SCRIPT.encode(), "text/html"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "image/svg+xml"),
        (b"GIF89a" + SCRIPT.encode(), "image/gif"),
        (b"\xff\xd8\xff" + SCRIPT.encode(), "image/jpeg"),
    ]:
        refused(http.post("/api/uploads", content=data, headers={"Content-Type": kind}))
        refused(http.post("/v1/images/variations", files={"image": ("a.html", data, kind)}))
        refused(http.post("/v1/images/variations", files={"image": ("a.png", data, "image/png")}))
    # A sound picture that carries a script gives it up.
    text = b"tEXt" + b"Comment\0" + SCRIPT.encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    answer = http.post("/api/uploads", content=picture[:33] + chunk + picture[33:] + SCRIPT.encode())
    assert answer.status_code == 201
    kept = http.get(f"/api/uploads/{answer.json()['id']}/file")
    assert b"<script" not in kept.content
    http.patch(f"/api/pictures/{drawn}", json={"title": SCRIPT}).raise_for_status()
    http.post("/v1/images/generations", json={"prompt": SCRIPT, "size": "16x16"}).raise_for_status()
    for path, wanted in [
        (f"/api/uploads/{answer.json()['id']}/file", "image/png"),
        (f"/api/pictures/{drawn}/file", "image/png"),
        (f"/api/pictures/{drawn}/thumbnail", "image/"),
        (f"/api/pictures/{drawn}", "application/json"),
        ("/api/pictures", "application/json"),
        ("/api/jobs", "application/json"),
    ]:
        found = http.get(path)
        assert found.status_code == 200
        assert found.headers["content-type"].startswith(wanted)
        assert found.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in found.headers["content-security-policy"]


@cases("CVE-2026-111985")
def test_lying_headers_of_safetensors_cost_nothing(tmp_path, tiny_folder, number):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = next(folder.glob("*.safetensors"))
    for head in (
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{" * 100,
        struct.pack("<Q", 8) + b"[[[[[[[[",
        b"",
    ):
        weights.write_bytes(head + bytes(100) if head else b"")
        began = time.monotonic()
        with pytest.raises(ModelError):
            Model.load(folder, device="cpu").generate("a red apple")
        assert time.monotonic() - began < 5


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@cases("CVE-2026-68771", "CVE-2024-12029", "CVE-2025-32434", "CVE-2026-24747", "CVE-2026-4538")
def test_no_pickle_is_read_over_http(http, picture, tmp_path, number):
    mark, file = tmp_path / "mark", tmp_path / "model.pt"
    file.write_bytes(pickle.dumps(Trap(mark)))
    refused(http.post("/api/uploads", content=file.read_bytes()))
    refused(http.post("/v1/images/variations", files={"image": ("a.png", file.read_bytes(), "image/png")}))
    for name in (
        str(file),
        str(tmp_path),
        f"file://{file}",
        "../model.pt",
        "someone/model",
        "https://evil.example/model.pt",
    ):
        refused(http.post("/v1/images/generations", json={"prompt": "x", "model": name}), 404)
        refused(
            http.post("/api/jobs", json={"request": {"kind": "generate", "prompt": "x"}, "model": name}),
            400,
            404,
        )
    for path in (
        "/api/v2/models/install",
        "/api/models",
        "/api/models/install",
        "/v1/models",
        "/api/models/tiny/load",
    ):
        refused(http.post(path, json={"source": str(file)}), 404, 405)
    assert not mark.exists()


def test_models_cannot_be_installed_over_http(server):
    """CVE-2024-12029 and its like: no route that changes something is about models, plug-ins, settings or files."""
    changing = {
        (method, route.path)
        for route in server.app.routes
        for method in (getattr(route, "methods", None) or ())
        if method not in ("GET", "HEAD")
    }
    allowed = ("/api/jobs", "/api/queue", "/api/uploads", "/api/pictures", "/api/collections", "/api/canvases", "/api/compose",
               "/api/read",
               "/api/login", "/api/logout", "/v1/images/", "/v1/{rest:path}")  # fmt: skip
    others = {(method, path) for method, path in changing if not path.startswith(allowed)}
    assert others <= {("POST", "/api/models/{name:path}/verify")}


class Listener:
    """Counts connections to a port of this machine."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.1)
        self.port, self.count, self.open = self.socket.getsockname()[1], 0, True
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def _run(self) -> None:
        while self.open:
            try:
                self.socket.accept()[0].close()
                self.count += 1
            except TimeoutError:
                continue

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.thread.join()
        self.socket.close()


@cases(
    "CVE-2024-6095", "CVE-2026-59707", "CVE-2026-114493", "CVE-2025-5320", "CVE-2026-28416", "CVE-2026-27167",
    "InvokeAI-6.13.8-SSRF",
)  # fmt: skip
def test_nothing_is_fetched_from_addresses_in_requests(http, picture, number):
    with Listener() as listener:
        base = f"http://127.0.0.1:{listener.port}/a.png"
        for url in (
            base,
            base.replace("127.0.0.1", "localhost"),
            base.replace("http", "https"),
            "file:///etc/passwd",
            base.replace("127.0.0.1", "0"),
        ):
            refused(http.post("/v1/images/edits", json={"prompt": "x", "images": [{"image_url": url}]}))
            refused(
                http.post(
                    "/v1/images/edits",
                    json={"prompt": "x", "images": [{"image_url": url}], "mask": {"image_url": url}},
                )
            )
            refused(http.post("/v1/images/variations", data={"image": url}, files={"n": (None, "1")}))
            refused(http.post("/v1/images/generations", json={"prompt": "x", "model": url}), 404)
            http.post(
                "/v1/images/generations",
                json={"prompt": url, "size": "16x16", "user": url, "webhook": url, "image": url},
            )
            body = {"request": {"kind": "vary"}, "sources": {"picture": url}}
            refused(http.post("/api/jobs", json=body), 400, 404)
            refused(http.post("/api/uploads", content=url.encode()), 400)
            http.post("/api/uploads", json={"url": url})
        xml = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{base}"/></svg>'.encode()
        refused(http.post("/api/uploads", content=xml))
        time.sleep(0.3)
        assert listener.count == 0


@cases("CVE-2024-47084", "CVE-2024-47165", "CVE-2024-47164", "CVE-2024-47167")
def test_other_sites_can_neither_read_nor_write(http, number):
    for origin in (
        "null",
        "https://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://localhost:1",
    ):
        answer = http.get("/api/jobs", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers
        refused(http.post("/api/jobs", json={}, headers={"Origin": origin}), 403)
        refused(http.post("/v1/images/generations", json={"prompt": "x"}, headers={"Origin": origin}), 403)
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert (
            "access-control-allow-origin" not in http.request("OPTIONS", "/api/jobs", headers=asked).headers
        )


@cases("CVE-2024-28224", "CVE-2025-66414", "GHSA-q2xc-rrxj-58x9", "CVE-2026-48710")
def test_names_that_were_rebound_are_refused(http, number):
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.nip.io",
        "localhost.evil.example",
        "0.0.0.0",
        "169.254.169.254",
    ):
        for path in ("/api/jobs", "/v1/models", "/healthz", "/"):
            refused(http.get(path, headers={"Host": host}), 421)
    for host in ("a b", "evil.example/localhost", "localhost#evil", "@localhost"):
        refused(http.get("/v1/models", headers={"Host": host}), 400, 421)


@cases("CVE-2024-7010")
def test_wrong_keys_take_as_long_as_any(number):
    keys = Keys.of(["alice:alice-0123456789abcdef", "bob:bob-0123456789abcdefgh"])

    def seconds(key: str) -> float:
        found = []
        for _ in range(40):
            began = time.perf_counter()
            for _ in range(100):
                keys.owner(key)
            found.append(time.perf_counter() - began)
        return min(found)

    near, far = seconds("alice-0123456789abcdeX"), seconds("X" * 22)
    # Keys are hashed first, so that no prefix is compared at all.
    assert 0.6 < near / far < 1.7


@cases("CVE-2024-2029")
def test_no_shell_sees_a_name_or_a_prompt(http, picture, tmp_path, number):
    mark = tmp_path / "mark"
    for text in (
        f"; touch {mark}",
        f"$(touch {mark})",
        f"`touch {mark}`",
        f"| touch {mark}",
        f"a.png && touch {mark}",
    ):
        http.post(
            "/v1/images/variations",
            files={"image": (text, picture, "image/png")},
            data={"size": "16x16", "user": text},
        )
        http.post("/v1/images/generations", json={"prompt": text, "size": "16x16", "model": text})
        http.post("/v1/images/generations", json={"prompt": text, "size": "16x16"})
    assert not mark.exists()


@cases("CVE-2024-6868")
def test_no_archive_is_unpacked(http, tmp_path, server, number):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("../../../evil.txt")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    for path in ("/api/uploads", "/api/read"):
        refused(http.post(path, content=buffer.getvalue()))
    assert not any(name.endswith("evil.txt") for name in files_of(server.folder.parent))


@cases("CVE-2026-119979")
def test_no_name_of_a_downloaded_file_leads_out_of_its_folder(number):
    """Backslashes, parents, drives and absolute paths in the hub's list of files."""
    names = [
        "..\\..\\evil.json",
        "../evil.json",
        "C:\\evil.json",
        "/etc/evil.json",
        "a/../../evil.json",
        "\\\\host\\evil.json",
        "a/..\\evil.json",
        "C:evil.json",
    ]
    for name in names:
        with pytest.raises(ModelError, match="out of its folder"):
            needed([name, "config.json"])
    assert needed(["config.json", "unet/config.json"]) == ["config.json", "unet/config.json"]


@cases("CVE-2026-44513")
def test_no_code_of_a_model_folder_is_run(tmp_path, number):
    required = [
        Requirement(text).name
        for text in importlib.metadata.requires("unclip") or ()
        if "extra ==" not in text
    ]
    assert "diffusers" not in required
    assert "transformers" not in required
    mark, folder = tmp_path / "mark", tmp_path / "model"
    folder.mkdir()
    (folder / "pipeline.py").write_text(f"open({str(mark)!r}, 'w')")
    (folder / "__init__.py").write_text(f"open({str(mark)!r}, 'w')")
    (folder / "model_index.json").write_text(
        json.dumps(
            {"_class_name": ["pipeline", "Evil"], "decoder": ["pipeline", "Evil"], "trust_remote_code": True}
        )
    )
    with pytest.raises((ModelError, FileNotFoundError)):
        Model.load(folder, device="cpu")
    assert not mark.exists()


@cases("CVE-2025-62727")
def test_ranges_do_not_slow_the_server_down(http, drawn, number):
    began = time.monotonic()
    for ranges in (
        "bytes=" + ",".join(f"{i}-{i + 1}" for i in range(1000)),
        "bytes=" + "0-," * 1500,
        "bytes=-" + "9" * 4000,
    ):
        answer = http.get(f"/api/pictures/{drawn}/file", headers={"Range": ranges})
        assert answer.status_code in (200, 416, 400)
    assert time.monotonic() - began < 5


def png(*, side: int = 16, other: int | None = None, data: bytes | None = None, extra: bytes = b"") -> bytes:
    """A PNG of one colour whose header may say anything."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, other or side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes((3 * side + 1) * (other or side)) if data is None else data, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


BOMBS = {
    "CVE-2026-40192": lambda: png(side=30_000, data=bytes(100)),
    "CVE-2026-54059": lambda: b"SIMPLE  =" + b" " * 3000,
    "CVE-2026-54060": lambda: (
        b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 4, 30_000, 30_000, 8, 3) + bytes(100)
    ),
    "CVE-2026-55379": lambda: b"II*\0\x08\0\0\0" + bytes(200),
    "CVE-2026-55380": lambda: b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(100),
    "CVE-2026-59200": lambda: (
        b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff" * 6
    ),
    "CVE-2026-59197": lambda: b"DDS " + bytes(200),
    "CVE-2026-59199": lambda: b"icns" + struct.pack(">I", 2**31 - 1) + bytes(100),
    "CVE-2026-59205": lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "bomb-4096": lambda: png(side=4096, data=bytes(1000)),
    "bomb-65535": lambda: png(side=65_535, other=1),
}


@pytest.mark.parametrize("number", list(BOMBS))
def test_bombs_and_rare_formats_reach_no_decoder(http, number, monkeypatch):
    data, began = BOMBS[number](), time.monotonic()
    refused(http.post("/v1/images/variations", files={"image": ("a.png", data, "image/png")}))
    refused(http.post("/api/uploads", content=data))
    refused(http.post("/api/read", content=data))
    assert time.monotonic() - began < 5


def test_a_secret_is_no_ones_but_the_servers(server, serve):
    """CVE-2026-28416 and its like: a secret in the program is everyone's."""
    with serve() as other:
        mine = (server.folder / "secret").read_bytes()
        assert mine != (other.folder / "secret").read_bytes()
        login = httpx.post(f"{server.url}/api/login", json={"key": server.key})
        cookie = {"Cookie": login.headers["set-cookie"].split(";")[0]}
        assert httpx.get(f"{server.url}/api/jobs", headers=cookie).status_code == 200
        assert httpx.get(f"{other.url}/api/jobs", headers=cookie).status_code == 401
        body = {"prompt": "a red apple", "size": "16x16"}
        key = {"Authorization": f"Bearer {server.key}"}
        url = httpx.post(f"{server.url}/v1/images/generations", json=body, headers=key).json()["data"][0][
            "url"
        ]
        assert open_picture(httpx.get(url).content).size == (16, 16)
        assert httpx.get(url.replace(server.url, other.url)).status_code == 404


FLOORS = {
    "starlette": "1.6",
    "python-multipart": "0.0.32",
    "uvicorn": "0.52",
    "pillow": "12.3",
    "torch": "2.11",
    "safetensors": "0.8",
}
"""The first versions without the vulnerabilities that were published for them."""


@pytest.mark.parametrize("name", list(FLOORS))
def test_versions_have_a_floor(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    required = next(one for one in map(Requirement, listed) if one.name.lower() == name)
    floors = [Version(part.version) for part in required.specifier if part.operator == ">="]
    assert floors
    assert floors[0] >= Version(FLOORS[name])
    assert Version(importlib.metadata.version(name)) >= Version(FLOORS[name])
