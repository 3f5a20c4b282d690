"""Worker processes of a server: started, started again when they end, and ended with it."""

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import asdict

from unclip.serve.settings import Settings

logger = logging.getLogger(__name__)

_QUICK_SECONDS = 10.0


class Supervisor:
    """Keeps `settings.workers` worker processes running until `drain` or `kill`."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._ending = threading.Event()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the workers."""
        self._processes = [self._start_one() for _ in range(self._settings.workers)]
        self._thread.start()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [process.pid for process in self._processes]

    def drain(self, seconds: float) -> None:
        """Let the workers finish their pictures, for so long; then they give them up, and are killed if they do not end."""
        self._ending.set()
        self._signal("terminate")
        end = time.monotonic() + seconds
        if not self._wait(end):
            self._signal("terminate")
            if not self._wait(time.monotonic() + 10.0):
                self._signal("kill")
                self._wait(time.monotonic() + 5.0)

    def kill(self) -> None:
        """End the workers at once."""
        self._ending.set()
        self._signal("kill")
        self._wait(time.monotonic() + 5.0)

    def _start_one(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", "unclip.serve.worker_process"],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        # The pipe stays open: a worker whose server is gone reads its end.
        process.stdin.write(json.dumps(asdict(self._settings)).encode() + b"\n")
        process.stdin.flush()
        return process

    def _signal(self, name: str) -> None:
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    getattr(process, name)()

    def _wait(self, end: float) -> bool:
        while time.monotonic() < end:
            if all(process.poll() is not None for process in self._processes):
                for process in self._processes:
                    if process.stdin is not None:
                        with contextlib.suppress(OSError):
                            process.stdin.close()
                return True
            time.sleep(0.02)
        return False

    def _run(self) -> None:
        started, pause = [time.monotonic()] * len(self._processes), 0.5
        while not self._ending.wait(0.2):
            for index, process in enumerate(self._processes):
                code = process.poll()
                if code is None or self._ending.is_set():
                    continue
                logger.error("a worker ended with the code %s: it is started again", code)
                quick = time.monotonic() - started[index] < _QUICK_SECONDS
                pause = min(pause * 2, 30.0) if quick else 0.5
                if self._ending.wait(pause if quick else 0.0):
                    return
                if process.stdin is not None:
                    with contextlib.suppress(OSError):
                        process.stdin.close()
                self._processes[index] = self._start_one()
                started[index] = time.monotonic()
