"""The server process: uvicorn, worker processes, and an orderly end."""

import errno
import logging
import socket
import sys
import threading
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from unclip.serve.settings import Settings
from unclip.serve.supervisor import Supervisor

logger = logging.getLogger(__name__)

_HEADERS_SECONDS = 10


class Server(uvicorn.Server):
    """uvicorn that lets running pictures finish at the first SIGTERM or SIGINT, and ends at the second.

    Meanwhile `/readyz` says 503, and no job is taken; jobs that wait stay in the database.
    """

    def __init__(self, config: uvicorn.Config, app: Starlette, settings: Settings, supervisor: Supervisor):
        super().__init__(config)
        self._starlette, self._settings, self._supervisor = app, settings, supervisor
        self._draining: threading.Thread | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the orderly end, or end now."""
        if self._draining is None:
            self._draining = threading.Thread(target=self._drain, name="drain", daemon=True)
            self._draining.start()
        else:
            self._supervisor.kill()
            self.force_exit = self.should_exit = True

    def _drain(self) -> None:
        logger.info("ending: running pictures have %g seconds to finish", self._settings.drain)
        service: Any = getattr(self._starlette.state, "service", None)
        if service is not None:
            service.draining.set()
        self._supervisor.drain(self._settings.drain)
        if service is not None:
            service.hub.close()
        self.should_exit = True


def serve(
    app: Starlette, settings: Settings, *, host: str, port: int, on_start: Any = None, sockets: Any = None
) -> None:
    """Serve until a signal. `on_start(port)` is called when the server listens.

    Raises `OSError` for an address that cannot be listened on, before anything is started.
    """
    sockets = [listen(host, port)] if sockets is None else sockets
    supervisor = Supervisor(settings)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=_HEADERS_SECONDS,
        limit_concurrency=1000,
        h11_max_incomplete_event_size=32 << 10,
    )
    server = Server(config, app, settings, supervisor)
    supervisor.start()
    if on_start is not None:
        threading.Thread(target=_announce, args=(server, on_start), daemon=True).start()
    try:
        server.run(sockets=sockets)
    finally:
        supervisor.kill()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address. Raises `OSError`, which names the address and the remedy, where it cannot be."""
    shown = f"{shown_host(host)}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise OSError(
            f"the address {host!r} is unknown ({error.strerror}): give one of this machine with --host"
        ) from None
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            # A port of a server that has just ended is free at once.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind(address)
        found.listen(2048)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                f"{shown} is in use by another program, perhaps another `unclip serve`: "
                "choose another port with --port, or any free one with --port 0"
            ) from None
        raise OSError(
            f"{shown} cannot be listened on ({error.strerror}): choose another address with --host, or --port"
        ) from None
    return found


def shown_host(host: str) -> str:
    """A host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _announce(server: uvicorn.Server, on_start: Any) -> None:
    import time

    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.02)
    port = next(
        one.getsockname()[1]
        for running in server.servers
        for one in running.sockets
        if one.family.name != "AF_UNIX"
    )
    on_start(port)
