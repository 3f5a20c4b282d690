"""Workers and their leases: who draws what, and what happens to work whose worker is gone.

A worker counts its heartbeats. Others see the count stand still, by their own monotonic clocks, so that no clock of a
machine needs to be right. On one machine, a process that has ended is seen at once.
"""

import contextlib
import functools
import json
import os
import platform
import time
import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select, update

from unclip.serve.database import Database
from unclip.serve.states import emit, give_back
from unclip.serve.tables import workers


@functools.cache
def this_host() -> str:
    """Name of this machine, its start and its process numbers' space: where a process number means what it means here."""
    found = [platform.node()]
    for file in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        try:
            found.append(Path(file).read_text().strip()[:36])
        except OSError:
            continue
    with contextlib.suppress(OSError):
        found.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(found)[:255]


def process_mark(pid: int) -> str:
    """What distinguishes a process from a later one with the same number: when it started; "" where it is gone or unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def is_gone(host: str, pid: int, mark: str) -> bool:
    """Whether a worker's process has ended for sure: it was of this machine, and is not there."""
    return bool(mark) and host == this_host() and process_mark(pid) != mark


class Lease:
    """A worker's entry in the database, and its heartbeat."""

    def __init__(self, database: Database, models: list[str], device: str):
        self._database, self._models, self._device = database, models, device
        self.id = ""
        self.register()

    def register(self) -> None:
        """Enter the worker under a new id."""
        self.id = str(uuid.uuid4())
        with self._database.write() as connection:
            connection.execute(
                insert(workers).values(
                    id=self.id,
                    host=this_host(),
                    pid=os.getpid(),
                    process=process_mark(os.getpid()),
                    models=json.dumps(self._models),
                    device=self._device,
                    beat=0,
                    state="idle",
                    loaded="{}",
                    started=time.time(),
                )
            )

    def beat(self, state: str, *, message: str | None = None, loaded: dict[str, int] | None = None) -> bool:
        """Say that the worker is alive; False where others took it for gone and its work away."""
        values: dict[str, Any] = {"beat": workers.c.beat + 1, "state": state, "message": message}
        if loaded is not None:
            values["loaded"] = json.dumps(loaded)
        with self._database.note() as connection:
            found = connection.execute(update(workers).where(workers.c.id == self.id).values(**values))
            return found.rowcount == 1

    def leave(self) -> None:
        """Remove the worker; what it still holds goes back to the queue without counting as an attempt."""
        with self._database.write() as connection:
            give_back(connection, self.id, counted=False)
            connection.execute(delete(workers).where(workers.c.id == self.id))


class Reaper:
    """Finds workers that are gone, and gives their work back. One thread calls `reap` every second or so."""

    def __init__(self, database: Database, lease: float, max_attempts: int):
        self._database, self._lease, self._max_attempts = database, lease, max_attempts
        self._seen: dict[str, tuple[int, float]] = {}

    def reap(self) -> int:
        """Number of workers that were found gone since the last call; their pictures wait again."""
        gone, count = self._gone(), 0
        if gone:
            with self._database.write() as connection:
                for id, beat in gone.items():
                    removed = connection.execute(
                        delete(workers).where((workers.c.id == id) & (workers.c.beat == beat))
                    )
                    if removed.rowcount:
                        count += 1
                        give_back(connection, id, max_attempts=self._max_attempts)
                if count:
                    emit(connection, "queue")
        return count

    def _gone(self) -> dict[str, int]:
        now, gone = time.monotonic(), {}
        with self._database.read() as connection:
            rows = connection.execute(
                select(workers.c.id, workers.c.beat, workers.c.host, workers.c.pid, workers.c.process)
            ).all()
        seen = {}
        for row in rows:
            beat, since = self._seen.get(row.id, (row.beat, now))
            seen[row.id] = (row.beat, since if beat == row.beat else now)
            if now - seen[row.id][1] > self._lease or is_gone(row.host, row.pid, row.process):
                gone[row.id] = row.beat
        self._seen = seen
        return gone
