"""The built files are the source's, small, and served as a strict page should be."""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from unclip.serve.page import FILES, files, routes

SOURCE = Path(__file__).parents[3] / "page"
FIRST_LOAD = 150_000
"""Bytes of everything that the first load fetches, compressed, at most."""


@pytest.fixture
def client() -> TestClient:
    """A client of the page alone."""
    return TestClient(Starlette(routes=routes()))


def source_digest() -> str:
    """The digest that page/build.mjs computes: for each source file, in the order of lines, "PATH SHA256"."""
    names = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"]
    found = [
        *(SOURCE / name for name in names),
        *(path for path in (SOURCE / "src").rglob("*") if path.is_file()),
    ]
    lines = [
        f"{path.relative_to(SOURCE).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in found
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def test_built_files_are_of_these_sources() -> None:
    recorded = json.loads((FILES / "build.json").read_text())["source"]
    assert recorded == source_digest(), "the sources changed: run `npm ci && npm run build` in page/"


def test_a_fresh_build_gives_the_same_files(node_modules: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node is not None
    subprocess.run(
        [node, "build.mjs", str(tmp_path / "files")], cwd=node_modules, check=True, capture_output=True
    )
    built = {path.name: path.read_bytes() for path in (tmp_path / "files").iterdir()}
    shipped = {path.name: path.read_bytes() for path in FILES.iterdir()}
    assert built.keys() == shipped.keys()
    assert built == shipped


def test_types_and_unit_tests_of_the_source(node_modules: Path) -> None:
    npm = shutil.which("npm")
    assert npm is not None
    environment = os.environ | {"NO_UPDATE_NOTIFIER": "1"}
    for script in ("check", "test"):
        done = subprocess.run(
            [npm, "run", script], cwd=node_modules, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_first_load_is_small(client: TestClient) -> None:
    page = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert page.headers["content-encoding"] == "gzip"
    names = re.findall(r'(?:href|src)="(assets/[^"]+)"', page.text)
    assert len(names) == 3
    total = int(page.headers["content-length"])
    for name in names:
        answer = client.get(f"/{name}", headers={"Accept-Encoding": "gzip"})
        assert answer.status_code == 200
        total += int(answer.headers["content-length"])
    assert total < FIRST_LOAD
    assert total < 70_000, "it was 46 KB; larger is allowed, but should be meant"


def test_policy_allows_this_servers_files_alone(client: TestClient) -> None:
    headers = client.get("/").headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"


def test_page_holds_no_script_style_or_foreign_address(client: TestClient) -> None:
    html = client.get("/").text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=|javascript:|https?://", html)
    for name, file in files().items():
        if name.endswith((".js", ".css")):
            foreign = set(re.findall(rb"https?://[\w./-]+", file.content))
            assert foreign <= {b"http://www.w3.org/1999/xhtml", b"http://www.w3.org/2000/svg", b"http://www.w3.org/1998/Math/MathML"}  # fmt: skip


def test_names_with_a_hash_are_kept_for_ever(client: TestClient) -> None:
    for name, file in files().items():
        if name.startswith(("page-", "icon-")):
            stem = re.fullmatch(r"(?:page|icon)-([0-9a-f]{12})\.\w+", name)
            assert stem
            assert hashlib.sha256(file.content).hexdigest().startswith(stem[1])
            assert "immutable" in client.get(f"/assets/{name}").headers["cache-control"]


def test_only_built_files_are_served(client: TestClient) -> None:
    names = (
        "build.json",
        "__init__.py",
        "..%2f__init__.py",
        "%2e%2e/assets/__init__.py",
        "x",
        "index.html%00.js",
        "",
    )
    for name in names:
        assert client.get(f"/assets/{name}").status_code == 404, name


def test_a_browser_that_has_a_file_gets_none(client: TestClient) -> None:
    first = client.get("/")
    again = client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_compressed_and_plain_are_the_same(client: TestClient) -> None:
    for name, file in files().items():
        assert gzip.decompress(file.compressed) == file.content
        assert client.get(f"/assets/{name}", headers={"Accept-Encoding": "identity"}).content == file.content


def sources() -> list[tuple[str, str]]:
    """Names and texts of the page's TypeScript."""
    return [(path.name, path.read_text()) for path in sorted((SOURCE / "src").rglob("*.ts*"))]


def test_no_text_becomes_markup() -> None:
    for name, text in sources():
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        )
        assert found is None, (name, found)


def test_all_words_are_in_one_file() -> None:
    words = re.compile(
        r">\s*[A-Za-z][a-z]+[^<>{}=;()]*</"  # text between tags
        r'|\b(?:aria-label|title|placeholder|alt|label|hint|why)="[^"]*[A-Za-z][^"]*"'  # attributes that people read
        r'|(?:toast|announce)\(\s*["`]'
    )
    for name, text in sources():
        if name != "text.ts":
            assert words.search(text) is None, (name, words.search(text))


def test_lock_file_names_no_registry() -> None:
    assert "resolved" not in (SOURCE / "package-lock.json").read_text()
    assert (SOURCE / ".npmrc").read_text() == "omit-lockfile-registry-resolved=true\n"
