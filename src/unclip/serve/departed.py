"""Jobs whose clients have gone while the database could not be written: they are cancelled later, after a restart as well."""

import logging
import re
import threading
from pathlib import Path

from unclip.images.files import write_atomically

logger = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f-]{36}")


class Departed:
    """Ids of such jobs, in memory and in the file `cancel-later` of the server's folder while there are any.

    The folder may be on the disk that is full: then they are in memory alone until it can be written.
    """

    def __init__(self, folder: Path):
        self._file = folder / "cancel-later"
        self._lock = threading.Lock()
        self._jobs = self._read()
        self._kept = set(self._jobs)

    @property
    def jobs(self) -> list[str]:
        """The ids; what could not be written before is tried again."""
        with self._lock:
            self._keep()
            return sorted(self._jobs)

    def add(self, job: str) -> None:
        """Remember a job."""
        with self._lock:
            self._jobs.add(job)
            self._keep()

    def discard(self, job: str) -> None:
        """Forget a job that is cancelled."""
        with self._lock:
            self._jobs.discard(job)
            self._keep()

    def _read(self) -> set[str]:
        try:
            return set(_ID.findall(self._file.read_text(errors="replace")))
        except OSError:
            return set()

    def _keep(self) -> None:
        if self._jobs == self._kept:
            return
        try:
            if self._jobs:
                write_atomically(self._file, "\n".join(sorted(self._jobs)).encode(), force=True)
            else:
                self._file.unlink(missing_ok=True)
        except OSError:
            return
        self._kept = set(self._jobs)
