"""What a worker does after every sampling step: looks for cancellations, and records progress and previews."""

import io
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unclip.errors import Cancelled
from unclip.serve.errors import Unavailable
from unclip.serve.queue_records import Note, Task

if TYPE_CHECKING:
    from unclip.serve.worker import Worker

NOTE_SECONDS = 0.2
"""Least time between two records of progress; the decoder's first step and a stage's beginning are recorded in any case."""
NOTE_SHARE = 0.01
"""Share of the time that records of progress and previews may take: where they are slow, there are fewer."""
MOST_SECONDS = 2.0
"""Most time between two records, where steps are shorter."""
PREVIEW_SECONDS = 0.2
SOON_SECONDS = 0.25
"""Time before the end of a call in which nothing more is previewed: the picture itself comes as soon."""
PREVIEW_SIDE = 256


class Follower:
    """Callback of a call: records progress and previews, and ends the call when its tasks are no longer held.

    Previews are made only of jobs that somebody watches.
    """

    def __init__(self, worker: "Worker", held: Sequence[Task]):
        self._worker, self._held = worker, held
        self._owner = worker.lease.id
        self.finished = 0
        self._next = self._previewed = 0.0
        self._began = time.monotonic()
        self._watched: dict[str, bool] = {}
        self._shown = False

    @property
    def left(self) -> Sequence[Task]:
        """Tasks whose pictures are not drawn yet."""
        return self._held[self.finished :]

    def __call__(self, progress: Any) -> None:
        """Follow one step. Raises `Cancelled` where it was the last."""
        if self._worker.now.is_set():
            raise Cancelled("the worker is ending")
        now = time.monotonic()
        try:
            begins = progress.step == 0
            if begins or now >= self._next or self._is_first_look(progress):
                self._record(progress, now)
                cost = time.monotonic() - now
                pause = min(max(NOTE_SECONDS, cost / NOTE_SHARE - cost), MOST_SECONDS)
                self._next = now + cost + pause
            elif self._worker.changes.heard():
                self._go_on(self._worker.queue.held(self._owner, [task.id for task in self.left]))
        except Unavailable:
            return

    def _is_first_look(self, progress: Any) -> bool:
        """Whether the pictures can be seen, and were not shown yet though somebody may watch."""
        may = progress.codec is not None and not self._shown and any(task.previews for task in self._held)
        return may and progress.step <= 2

    def _is_over_soon(self, progress: Any, now: float) -> bool:
        """Whether the call ends at once, by the time that its steps took so far; a first preview is shown in any case."""
        left = (now - self._began) * (1 - progress.fraction) / max(progress.fraction, 1e-3)
        return self._shown and left < SOON_SECONDS

    def _record(self, progress: Any, now: float) -> None:
        first = progress.first
        active = self._held[first : first + max(1, len(progress.x0))] if len(self._held) > 1 else self._held
        views = self._views(progress, active, now)
        notes = [
            Note(
                task=task.id,
                job=task.job,
                index=task.index,
                stage=progress.stage,
                step=progress.step,
                steps=progress.total,
                fraction=progress.fraction,
                preview=views[index][0] if index < len(views) else None,
                size=views[index][1] if index < len(views) else (0, 0),
            )
            for index, task in enumerate(active)
        ]
        mine = self._worker.queue.progress(self._owner, notes)
        self._watched |= mine
        self._go_on(mine or self._worker.queue.held(self._owner, [task.id for task in self.left]))

    def _go_on(self, mine: Any) -> None:
        """Raise `Cancelled` where no task is held."""
        if not mine:
            raise Cancelled("the pictures are no longer wanted")

    def _views(
        self, progress: Any, active: Sequence[Task], now: float
    ) -> list[tuple[bytes, tuple[int, int]]]:
        watched = any(task.previews and self._watched.get(task.id) for task in active)
        if not watched or now - self._previewed < PREVIEW_SECONDS or self._is_over_soon(progress, now):
            return []
        views = []
        for image in progress.previews():
            self._previewed, self._shown = now, True
            if max(image.size) > PREVIEW_SIDE:
                image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=1)
            views.append((buffer.getvalue(), image.size))
        return views
