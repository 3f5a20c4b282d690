"""Real processes for tests: a server, workers, PostgreSQL, and storage with the interface of S3."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

START = "import sys; from unclip.cli.main import main; sys.exit(main(sys.argv[1:]))"


def start(arguments: Sequence[str], log: Path, **more: Any) -> "subprocess.Popen[bytes]":
    """A process of the command line, whose stderr goes to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-c", START, *arguments],
            stdout=subprocess.PIPE,
            stderr=file,
            stdin=subprocess.DEVNULL,
            **more,
        )


class Server:
    """`unclip serve` with the tiny model, on a free port of 127.0.0.1."""

    def __init__(self, folder: Path, model: Path, *more: str, env: dict[str, str] | None = None):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "server.log"
        options = [
            "--port",
            "0",
            "--folder",
            str(folder),
            "--device",
            "cpu",
            "--model",
            f"tiny={model}",
            *more,
        ]
        self.process = start(["serve", *options], self.log, env={**os.environ, **(env or {})})
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        assert self.url.startswith("http"), self.log.read_text()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def call(self, path: str, body: Any = None, method: str | None = None, seconds: float = 60.0) -> Any:
        """JSON of an answer. Raises `HTTPError` for another status than success."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            found = answer.read()
            return json.loads(found) if answer.headers.get_content_type() == "application/json" else found

    def submit(self, **request: Any) -> str:
        """Id of a job."""
        return self.call("/api/jobs", {"request": {"kind": "generate", "prompt": "a red apple", **request}})[
            "id"
        ]

    def workers(self) -> list[int]:
        """Numbers of the worker processes."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(line) for line in found.stdout.split()]

    def kill(self) -> None:
        """End the server as a power cut does."""
        for pid in [*self.workers(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = 60.0) -> int:
        """Exit code of the server."""
        code = self.process.wait(seconds)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextlib.contextmanager
def worker(
    log: Path, *options: str, env: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """`unclip worker`, killed at the end."""
    process = start(["worker", "--device", "cpu", *options], log, env={**os.environ, **(env or {})})
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def until(condition: Callable[[], Any], seconds: float = 60.0, every: float = 0.05) -> Any:
    """What the condition gives once it is true. Fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(every)
    return found


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def postgres_programs() -> Path | None:
    """Folder of `initdb` and `pg_ctl`; None where PostgreSQL is not installed."""
    if (found := shutil.which("initdb")) is not None and shutil.which("pg_ctl") is not None:
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL cluster of its own, run by a user who is not root."""
    programs = postgres_programs()
    assert programs is not None
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    port, run = free_port(), {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
    # Not in pytest's folders, which only their owner may enter.
    with tempfile.TemporaryDirectory(prefix="unclip-postgres-") as folder:
        if as_user:
            shutil.chown(folder, "postgres")
        data = f"{folder}/cluster"
        options = ["-D", data, "-U", "unclip", "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run([*as_user, str(programs / "initdb"), *options], **run)
        control = [*as_user, str(programs / "pg_ctl"), "-D", data, "-w", "-l", f"{folder}/log"]
        settings = f"-h 127.0.0.1 -p {port} -k {folder}"
        subprocess.run([*control, "-o", settings, "start"], **run)
        try:
            yield f"postgresql://unclip@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **run)


def s3_program() -> str | None:
    """Program of moto, a server with the interface of S3; None where it is not installed."""
    beside = Path(sys.executable).with_name("moto_server")
    return str(beside) if beside.exists() else shutil.which("moto_server")


@contextlib.contextmanager
def s3(log: Path) -> Iterator[dict[str, str]]:
    """Environment for storage with the interface of S3 that has a bucket named "pictures"."""
    program, port = s3_program(), free_port()
    assert program is not None
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        process = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=file, stderr=file)
    try:

        def answers() -> bool:
            try:
                request = urllib.request.Request(f"{url}/pictures", method="PUT")
                with urllib.request.urlopen(request, timeout=5):
                    return True
            except OSError:
                return False

        until(answers)
        yield {
            "AWS_ENDPOINT": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
    finally:
        process.terminate()
        process.wait()
