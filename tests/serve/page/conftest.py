"""The page in Chromium, served by a real `unclip serve` process with the tests' tiny model."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra unclip[serve] is not installed")

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "page"
DESKTOP = {"viewport": {"width": 1280, "height": 860}}


class Served:
    """A running `unclip serve`, and its API. `restart` ends the process and starts another at the same address."""

    def __init__(self, folder: Path, model: str, *, key: str | None = None):
        self.folder, self.model, self.key, self.port = folder, model, key, 0
        self.process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start the process; its first line says the address."""
        command = [sys.executable, "-c", "from unclip.cli.main import main; main()", "serve"]
        options = [
            "--port",
            self.port,
            "--folder",
            self.folder,
            "--model",
            self.model,
            "--device",
            "cpu",
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        if self.key is not None:
            environment["UNCLIP_API_KEYS"] = f"owner:{self.key}"
        self.log = (self.folder.parent / "server.log").open("a")
        self.process = subprocess.Popen(
            [*command, *map(str, options)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r":(\d+)", line)
        assert found, f"no address: {line!r}; {(self.folder.parent / 'server.log').read_text()[-2000:]}"
        self.port = int(found[1])
        # Workers import torch first.
        try:
            self.eventually(lambda: self.call("queue")["workers"], 120)
        except BaseException:
            self.stop(kill=True)
            raise

    def stop(self, *, kill: bool = False) -> None:
        """End the process; with `kill`, at once and without its help."""
        assert self.process is not None
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()

    def restart(self, *, kill: bool = False) -> None:
        """A fresh process at the same address, over the same folder."""
        self.stop(kill=kill)
        self.start()

    def call(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """JSON of the API; bytes of a body that is none."""
        raw = isinstance(body, bytes)
        data = body if raw or body is None else json.dumps(body).encode()
        headers = {"Content-Type": "image/png" if raw else "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"{self.url}api/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
        try:
            return json.loads(content) if content else None
        except ValueError:
            return content

    def draw(
        self, prompt: str | None = "a red apple", *, wait: bool = True, sources: Any = None, **fields: Any
    ) -> Any:
        """A job of a request, finished unless `wait` is false."""
        request = {"kind": "generate", "prompt": prompt, **fields}
        if prompt is None:
            del request["prompt"]
        job = self.call("jobs", "POST", {"request": request, "sources": sources or {}})
        return self.wait(job["id"]) if wait else job

    def wait(self, id: str, seconds: float = 60) -> Any:
        """The job, when it has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job = self.call(f"jobs/{id}")
            if job["ended"] is not None:
                return job
            time.sleep(0.05)
        raise AssertionError(f"the job did not end: {job}")

    def newest(self) -> Any:
        """The job that was made last."""
        return self.call("jobs?limit=1")["items"][0]

    def eventually(self, holds: Callable[[], Any], seconds: float = 45) -> Any:
        """The value of `holds` as soon as it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := holds():
                return found
            time.sleep(0.05)
        raise AssertionError("it did not come true")

    def clear(self) -> None:
        """End all jobs that are open, and let the queue run."""
        self.call("queue/resume", "POST")
        for job in self.call("jobs?state=open&limit=100")["items"]:
            self.call(f"jobs/{job['id']}/cancel", "POST")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Served]:
    """The server that all tests of the page share."""
    server = Served(tmp_path_factory.mktemp("served") / "data", f"tiny={tiny_folder}")
    yield server
    server.stop()


@pytest.fixture
def start_server(tmp_path: Path, tiny_folder: Path) -> Iterator[Callable[..., Served]]:
    """Starts a server of the test's own."""
    started: list[Served] = []

    def start(model: str = f"tiny={tiny_folder}", **options: Any) -> Served:
        started.append(Served(tmp_path / "own" / "data", model, **options))
        return started[-1]

    (tmp_path / "own").mkdir()
    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium of the distribution, without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    playwright.expect.set_options(timeout=20_000)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, served: Served) -> Iterator[Callable[..., Any]]:
    """Opens a place in a fresh browser profile. Errors of scripts and of the content policy fail the test."""
    contexts: list[Any] = []
    problems: list[str] = []

    def start(place: str = "", *, server: Served = served, **options: Any) -> Any:
        context = browser.new_context(
            **{**DESKTOP, "color_scheme": "light", "accept_downloads": True, **options}
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if is_problem(message) else None)
        page.goto(f"{server.url}#/{place}")
        page.wait_for_selector("main > *")
        return page

    def is_problem(message: Any) -> bool:
        # A server that is away, and answers such as 404, are reported as well: tests make them.
        return message.type == "error" and not message.text.startswith("Failed to load resource")

    yield start
    for context in contexts:
        context.close()
    served.clear()
    assert not problems, problems


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits until an expression of a page is true. Playwright's own way needs `eval`, which the page's policy forbids."""

    def wait(page: Any, expression: str, argument: Any = None, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not page.evaluate(expression, argument):
            assert time.monotonic() < end, f"it did not come true: {expression}"
            page.wait_for_timeout(50)

    return wait


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the page's source with its packages, installed from the lock file where they are not there yet."""
    if (SOURCE / "node_modules").is_dir():
        return SOURCE
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm") / "page"
    shutil.copytree(SOURCE, folder)
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"npm ci failed: {done.stderr[-1000:]}")
        pytest.skip(f"npm could not install the page's packages: {done.stderr[-300:]}")
    return folder
