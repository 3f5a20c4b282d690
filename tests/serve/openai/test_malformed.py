"""Malformed requests: no crash, no 5xx, no answer of another shape, and memory that does not grow."""

import contextlib
import json
import socket
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import pytest

PARSERS_OWN = b"Invalid HTTP request received."
"""What uvicorn answers to bytes that are no HTTP: they reach no application."""


def exchange(address: str, data: bytes, patience: float) -> bytes:
    """What the server answers before it closes the connection, or says nothing for `patience` seconds."""
    host, port = address.removeprefix("http://").split(":")
    found = b""
    with socket.create_connection((host, int(port)), timeout=patience) as connection:
        # An answer may come, and the connection close, before all is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            while part := connection.recv(65536):
                found += part
    return found


def problem(answer: bytes) -> str | None:
    """What is wrong with an answer; None if nothing is."""
    if not answer:
        return None  # the rest of the request is waited for
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    while lines[0].split(b" ")[1:2] == [b"100"]:
        head, _, body = body.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
    status = int(lines[0].split(b" ")[1])
    if status >= 500:
        return f"status {status}: {body[:300]!r}"
    headers = {line.split(b":", 1)[0].lower(): line.split(b":", 1)[1].strip() for line in lines[1:]}
    if status < 400 or body in (b"", PARSERS_OWN):
        return None
    if headers.get(b"transfer-encoding") == b"chunked":
        return None if b'{"error"' in body else f"no error: {body[:200]!r}"
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"no error in OpenAI's shape: {status} {body[:200]!r}"
    if set(error) != {"message", "type", "param", "code"} or len(error["message"]) > 2003:
        return f"another shape: {body[:200]!r}"
    if any(word in error["message"] for word in ("Traceback", "/site-packages/", "/src/unclip/")):
        return f"tells of the inside: {error['message'][:300]!r}"
    return None


def memory() -> int:
    """Bytes of this process, server included, that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def send_all(server, malformed, numbers) -> Counter:
    """Statuses by kind. Fails at the first answer that is wrong."""
    statuses: Counter = Counter()

    def send(number: int) -> None:
        sent = malformed.make(number, server.key)
        # Lines and headers may promise a body that never comes; the others are whole requests.
        odd = sent.kind in ("odd headers", "odd line")
        answer = exchange(server.url, sent.data, 0.5 if odd else 60)
        wrong = problem(answer)
        assert wrong is None, f"request {number} ({sent.kind}): {wrong}"
        statuses[sent.kind, answer.split(b" ")[1].decode() if answer else "silent"] += 1

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(send, number) for number in numbers]:
            done.result()
    return statuses


def check_alive(server) -> None:
    answer = httpx.get(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {server.key}"})
    assert answer.status_code == 200


def test_300_malformed_requests(server, load_helper):
    statuses = send_all(server, load_helper("openai/malformed"), range(300))
    check_alive(server)
    assert sum(statuses.values()) == 300
    assert sum(count for (_, status), count in statuses.items() if status.startswith("4")) > 200, statuses


@pytest.mark.slow
def test_10000_malformed_requests_in_bounded_memory(server, load_helper, capsys):
    malformed = load_helper("openai/malformed")
    send_all(server, malformed, range(300, 1300))
    before, began = memory(), time.monotonic()
    statuses = send_all(server, malformed, range(1300, 11_300))
    seconds, grown = time.monotonic() - began, memory() - before
    check_alive(server)
    counts = {f"{kind} {status}": count for (kind, status), count in sorted(statuses.items())}
    with capsys.disabled():
        sys.stdout.write(
            f"\n{seconds:.1f} s, memory grew by {grown / 1e6:.1f} MB; {json.dumps(counts, indent=1)}\n"
        )
    assert grown < 150e6
