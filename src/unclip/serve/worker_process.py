"""The process of a worker: `unclip worker`, or one that a server started (`python -m unclip.serve.worker_process`)."""

import json
import logging
import os
import signal
import sys
import threading
from typing import Any

from unclip.serve.settings import Settings

logger = logging.getLogger(__name__)


def run_worker(settings: Settings, *, started_by_server: bool = False) -> None:
    """Draw until SIGTERM or SIGINT: the first ends after the pictures at work, the second within a step."""
    from unclip.serve.worker import Worker

    worker = Worker(settings)
    worker.keep_memory()
    count = 0

    def end(_signal: int, _frame: Any) -> None:
        nonlocal count
        count += 1
        worker.stop(now=count > 1)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, end)
    if started_by_server:
        threading.Thread(target=_follow_server, args=(worker,), name="server", daemon=True).start()
    worker.run()


def _follow_server(worker: Any) -> None:
    """End with the server: without it, nobody would start this worker again, or end it."""
    try:
        while os.read(0, 4096):
            continue
    except OSError:
        pass
    worker.stop(now=True)


def main() -> None:
    """Run a worker with the settings in the first line of stdin."""
    from unclip.serve.logs import configure_logging

    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(1)
        line += byte
    settings = Settings(**json.loads(line))
    configure_logging(prompts=settings.log_prompts)
    run_worker(settings, started_by_server=True)
    # All is stored. Taking torch apart would take half a second of the server's time to end.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
