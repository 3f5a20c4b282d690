"""A worker: takes tasks from the queue, draws them, and stores the pictures."""

import functools
import io
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from unclip.errors import Cancelled, ModelError, RequestError, Unsupported
from unclip.generate.operations import read_request
from unclip.images.errors import PictureError
from unclip.serve.database import Database
from unclip.serve.errors import Unavailable
from unclip.serve.leases import Lease, Reaper
from unclip.serve.loaded import Loaded
from unclip.serve.plan import join, prompt_of
from unclip.serve.queue import NO_MEMORY, NOT_DRAWN, Queue
from unclip.serve.queue_records import Drawn, Note, Task
from unclip.serve.settings import Settings
from unclip.serve.store import Store, open_store, picture_name, upload_name
from unclip.serve.tables import pictures

logger = logging.getLogger(__name__)

NOTE_SECONDS = 0.04
"""Time between two notes of progress; each looks for a cancellation as well."""
PREVIEW_SECONDS = 0.2
PREVIEW_SIDE = 256


class Worker:
    """A worker of one thread, with a thread for its heartbeat. `run` returns after `stop`.

    Errors of database and store are waited out: a finished picture is kept in memory until it is stored.
    """

    def __init__(self, settings: Settings, database: Database | None = None, store: Store | None = None):
        self._settings = settings
        self._own_database = database is None
        self.database = Database(settings.database_url) if database is None else database
        self.store = open_store(settings.store_url) if store is None else store
        self.queue = Queue(self.database, max_queue=settings.max_queue)
        self.stopping = threading.Event()
        self._now = threading.Event()
        self._message: str | None = None
        self._state = "idle"
        self.loaded = Loaded(
            settings.models,
            device=settings.device,
            dtype=settings.dtype,
            offload=settings.offload,
            budget=settings.memory,
        )

    def stop(self, *, now: bool = False) -> None:
        """End after the pictures at work; `now` gives them up within a step, and they wait again."""
        self.stopping.set()
        if now:
            self._now.set()

    def run(self) -> None:
        """Draw until `stop`."""
        self.lease = self._patiently(
            lambda: Lease(self.database, list(self._settings.models), self._settings.device or "best")
        )
        watch = self.database.watch()
        done = threading.Event()
        pulse = threading.Thread(target=self._pulse, args=(done,), name="heartbeat", daemon=True)
        pulse.start()
        try:
            while not self.stopping.is_set():
                if not self._step():
                    watch.wait(1.0, self.stopping)
        finally:
            done.set()
            pulse.join()
            watch.close()
            try:
                self.lease.leave()
            except Unavailable:
                logger.warning("the worker could not sign off: others will see that it is gone")
            if self._own_database:
                self.database.close()

    def _step(self) -> bool:
        """Whether there was something to draw."""
        try:
            held = self.queue.claim(self.lease.id, list(self._settings.models), self._batch)
        except Unavailable:
            self.stopping.wait(1.0)
            return False
        if not held:
            return False
        self._state = "drawing"
        try:
            self._draw(held)
        finally:
            self._state = "idle"
        return True

    @functools.cached_property
    def _batch(self) -> int:
        if self._settings.batch is not None:
            return self._settings.batch
        from unclip.generate.parts import best_device

        device = self._settings.device or str(best_device())
        return 1 if device.startswith("cpu") else 8

    def _draw(self, held: Sequence[Task]) -> None:
        follower = _Follower(self, held)
        ids = [task.id for task in held]
        try:
            self._run(held, follower)
        except Cancelled:
            self._patiently(lambda: self.queue.release(ids, self.lease.id, max_attempts=1 << 30))
        except Unavailable as error:
            logger.warning("pictures wait again: %s", error.message)
            self._patiently(
                lambda: self.queue.release(ids, self.lease.id, max_attempts=self._settings.max_attempts)
            )
            self.stopping.wait(1.0)
        except (ModelError, FileNotFoundError) as error:
            # The message names folders of this machine, which clients need not know.
            logger.error("the model %s cannot be used: %s", held[0].model, error)
            text = f"the model {held[0].model!r} cannot be used: the worker's log says why"
            self._patiently(lambda: self.queue.fail(ids, self.lease.id, text))
        except (RequestError, Unsupported, PictureError) as error:
            text = str(error)
            logger.warning("a job of the kind %s cannot be drawn: %s", held[0].kind, type(error).__name__)
            self._patiently(lambda: self.queue.fail(ids, self.lease.id, text))
        except Exception as error:
            self._surprise(held, error)

    def _surprise(self, held: Sequence[Task], error: Exception) -> None:
        """Out of memory, or an error of the program: the job fails, the worker goes on."""
        memory = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
        if memory:
            self.loaded.drop()
            text = f"{NO_MEMORY}: ask for a smaller size, or start with --offload"
        else:
            text = f"{NOT_DRAWN} ({type(error).__name__})"
        logger.error("%s", text, exc_info=None if memory else error)
        self._patiently(lambda: self.queue.fail([task.id for task in held], self.lease.id, text))

    def _run(self, held: Sequence[Task], follower: "_Follower") -> None:
        model = self.loaded.get(held[0].model)
        requests = [read_request(task.request) for task in held]
        same_job = len({task.job for task in held}) == 1
        joined = join(requests) if same_job else None
        started = time.perf_counter()
        if joined is None:
            made = iter(model.run_batch(requests, on_progress=follower))
        else:
            sources = [self._source(id) for _, id in held[0].sources]
            made = model.run(joined, sources, on_progress=follower)
        for index, (task, request) in enumerate(zip(held, requests)):
            image = next(made)
            seconds = (time.perf_counter() - started) / (len(held) if joined is None else 1)
            if joined is not None:
                started = time.perf_counter()
            self._finish(task, image, prompt_of(request), seconds)
            follower.finished = index + 1

    def _source(self, id: str) -> bytes:
        for name in (upload_name(id), picture_name(id)):
            try:
                return self.store.get(name)
            except KeyError:
                continue
        raise RequestError(f"the given picture {id} is no longer there")

    def _finish(self, task: Task, image: Any, prompt: str | None, seconds: float) -> None:
        data = image.png()
        drawn = Drawn(
            width=image.image.width,
            height=image.image.height,
            seed=image.seed,
            prompt=prompt,
            provenance=image.provenance,
            size=len(data),
            seconds=seconds,
            warnings=image.warnings,
        )

        def keep() -> None:
            if not self.queue.held(self.lease.id, [task.id]):
                return
            self.store.put(picture_name(task.id), data)
            if not self.queue.finish(task, self.lease.id, drawn):
                self._remove_unless_drawn(task)

        self._patiently(keep)

    def _remove_unless_drawn(self, task: Task) -> None:
        """Remove the file of a picture that was cancelled while it was stored."""
        from sqlalchemy import select

        from unclip.serve.tables import tasks

        with self.database.read() as connection:
            state = connection.execute(select(tasks.c.state).where(tasks.c.id == task.id)).scalar()
            drawn = connection.execute(select(pictures.c.id).where(pictures.c.id == task.id)).first()
        if drawn is None and state in ("cancelled", "failed", None):
            self.store.delete(picture_name(task.id))

    def _patiently(self, action: Callable[[], Any]) -> Any:
        """Result of an action that is tried until database and store can be used, or the worker must end at once."""
        pause = 0.2
        while True:
            try:
                result = action()
                self._message = None
                return result
            except Unavailable as error:
                self._message = error.message
                if self._now.wait(pause):
                    raise
                pause = min(pause * 2, 5.0)

    def _pulse(self, done: threading.Event) -> None:
        """Beat until `done`, and look for other workers that are gone."""
        reaper = Reaper(self.database, self._settings.lease, self._settings.max_attempts)
        every = min(2.0, self._settings.lease / 4)
        while not done.wait(every):
            try:
                state = "stopping" if self.stopping.is_set() else self._state
                if not self.lease.beat(state, message=self._message, loaded=self.loaded.sizes):
                    logger.warning("others took this worker for gone: it starts over")
                    self.lease.register()
                reaper.reap()
            except Unavailable:
                continue
            except Exception:
                logger.exception("a heartbeat failed")


class _Follower:
    """Callback of a call: records progress and previews, and ends the call when its tasks are no longer held."""

    def __init__(self, worker: Worker, held: Sequence[Task]):
        self._worker, self._held = worker, held
        self._owner = worker.lease.id
        self.finished = 0
        self._noted = 0.0
        self._previewed = 0.0

    def __call__(self, progress: Any) -> None:
        if self._worker._now.is_set():
            raise Cancelled("the worker is ending")
        now = time.monotonic()
        if now - self._noted < NOTE_SECONDS and progress.step < progress.total:
            return
        self._noted = now
        views = self._views(progress, now)
        first = progress.first
        active = self._held[first : first + max(1, len(progress.x0))] if len(self._held) > 1 else self._held
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
        try:
            mine = self._worker.queue.progress(self._owner, notes)
            if not mine:
                left = [task.id for task in self._held[self.finished :]]
                mine = self._worker.queue.held(self._owner, left)
        except Unavailable:
            return
        if not mine:
            raise Cancelled("the pictures are no longer wanted")

    def _views(self, progress: Any, now: float) -> list[tuple[bytes, tuple[int, int]]]:
        if not any(task.previews for task in self._held) or now - self._previewed < PREVIEW_SECONDS:
            return []
        views = []
        for image in progress.previews():
            self._previewed = now
            if max(image.size) > PREVIEW_SIDE:
                image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=1)
            views.append((buffer.getvalue(), image.size))
        return views
