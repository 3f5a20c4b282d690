"""The end of a picture: encoded and stored, in a thread of its own, while the worker draws the next one."""

import logging
import queue
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from unclip.serve.errors import Unavailable
from unclip.serve.queue_records import Drawn, Task
from unclip.serve.states import NOT_DRAWN
from unclip.serve.store import picture_name
from unclip.serve.tables import pictures, tasks

if TYPE_CHECKING:
    from unclip.serve.worker import Worker

logger = logging.getLogger(__name__)

MAX_WAITING = 8
"""Pictures that may wait to be stored, before the worker waits with its next one."""


class _Made(NamedTuple):
    task: Task
    image: Any
    prompt: str | None
    seconds: float


class Finisher:
    """Stores pictures in the order in which they were drawn. The worker holds their tasks until they are recorded."""

    def __init__(self, worker: "Worker"):
        self._worker = worker
        self._waiting: queue.Queue[_Made | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="finisher", daemon=True)
        self._thread.start()

    def put(self, task: Task, image: Any, prompt: str | None, seconds: float) -> None:
        """Have a picture stored; waits while many are. A worker that must end at once leaves it: it waits again."""
        self._put(_Made(task, image, prompt, seconds))

    def close(self) -> None:
        """Store what is left, and end; of a worker that must end at once, leave it."""
        self._put(None)
        self._thread.join()

    def _put(self, made: _Made | None) -> None:
        while self._thread.is_alive():
            try:
                self._waiting.put(made, timeout=0.2)
                return
            except queue.Full:
                continue

    def _run(self) -> None:
        while (made := self._waiting.get()) is not None:
            try:
                self._finish(made)
            except Unavailable:
                logger.warning("a finished picture could not be stored: it waits again")
                return
            except Exception as error:
                self._surprise(made.task, error)

    def _surprise(self, task: Task, error: Exception) -> None:
        logger.error("a picture could not be stored", exc_info=error)
        text = f"{NOT_DRAWN} ({type(error).__name__})"
        try:
            self._worker.patiently(lambda: self._worker.queue.fail([task.id], self._worker.lease.id, text))
        except Unavailable:
            return

    def _finish(self, made: _Made) -> None:
        task, image, worker = made.task, made.image, self._worker
        data = image.png()
        drawn = Drawn(
            width=image.image.width,
            height=image.image.height,
            seed=image.seed,
            prompt=made.prompt,
            provenance=image.provenance,
            size=len(data),
            seconds=made.seconds,
            warnings=image.warnings,
        )

        def keep() -> None:
            if not worker.queue.held(worker.lease.id, [task.id]):
                return
            worker.store.put(picture_name(task.id), data)
            if not worker.queue.finish(task, worker.lease.id, drawn):
                self._remove_unless_drawn(task)

        worker.patiently(keep)

    def _remove_unless_drawn(self, task: Task) -> None:
        """Remove the file of a picture that was cancelled while it was stored."""
        with self._worker.database.read() as connection:
            state = connection.execute(select(tasks.c.state).where(tasks.c.id == task.id)).scalar()
            drawn = connection.execute(select(pictures.c.id).where(pictures.c.id == task.id)).first()
        if drawn is None and state in ("cancelled", "failed", None):
            self._worker.store.delete(picture_name(task.id))
