"""Bells: named pipes beside a SQLite database, by which processes of one machine hear of a change as soon as it is committed.

A watch hangs a bell into the folder `FILE-bells`; whoever commits writes a byte into each. Where pipes cannot be made, as on
some network drives, a watch looks for changes now and then instead.
"""

import contextlib
import errno
import os
import select
import time
import uuid
from pathlib import Path

_POLL_SECONDS = 0.02


class Bells:
    """The bells of one database."""

    def __init__(self, file: str):
        self._folder = Path(f"{file}-bells")

    def ring(self, *, note: bool = False) -> None:
        """Ring all bells, or for a `note` those of watches that hear notes. Bells of processes that ended are removed."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        for name in names:
            if name.startswith("all-" if note else ("all-", "jobs-")):
                self._ring(self._folder / name)

    def _ring(self, pipe: Path) -> None:
        try:
            found = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nobody listens
                with contextlib.suppress(OSError):
                    pipe.unlink()
            return
        try:
            os.write(found, b"\0")
        except OSError:
            pass  # the pipe is full: its owner has yet to hear of earlier changes
        finally:
            os.close(found)

    def hang(self, *, notes: bool) -> "Bell":
        """A new bell, which rings for notes too or not."""
        return Bell(self._folder, f"{'all' if notes else 'jobs'}-{uuid.uuid4()}")


class Bell:
    """A bell that one thread listens to."""

    def __init__(self, folder: Path, name: str):
        self._pipe, self._read = folder / name, -1
        new = folder / f"new-{name}"
        try:
            folder.mkdir(exist_ok=True)
            os.mkfifo(new, 0o660)
            # Opened for both, a pipe has no end; named last, it is never seen without its listener.
            self._read = os.open(new, os.O_RDWR | os.O_NONBLOCK)
            new.rename(self._pipe)
        except (OSError, AttributeError):  # Windows has no mkfifo
            self.close()
            with contextlib.suppress(OSError):
                new.unlink()

    @property
    def is_heard(self) -> bool:
        """Whether there is a pipe."""
        return self._read >= 0

    def wait(self, seconds: float) -> bool:
        """Whether it rang since the last call, or rings within so many seconds; without a pipe, False after 20 ms."""
        if self._read < 0:
            time.sleep(min(_POLL_SECONDS, seconds))
            return False
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if not poll.poll(1000 * seconds):
            return False
        with contextlib.suppress(OSError):
            os.read(self._read, 65536)
        return True

    def close(self) -> None:
        """Remove the bell."""
        if self._read >= 0:
            os.close(self._read)
            self._read = -1
        with contextlib.suppress(OSError):
            self._pipe.unlink()
