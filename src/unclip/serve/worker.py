"""A worker: takes tasks from the queue and draws them."""

import functools
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
from unclip.serve.finisher import Finisher
from unclip.serve.follower import Follower
from unclip.serve.leases import Lease, Reaper
from unclip.serve.loaded import Loaded
from unclip.serve.plan import join, prompt_of
from unclip.serve.queue import Queue
from unclip.serve.queue_records import Task
from unclip.serve.settings import Settings
from unclip.serve.states import NO_MEMORY, NOT_DRAWN
from unclip.serve.store import Store, open_store, picture_name, upload_name

logger = logging.getLogger(__name__)


class Worker:
    """A worker that draws in one thread, with another for its heartbeat. `run` returns after `stop`.

    Pictures are encoded and stored by a third thread while the next is drawn. Errors of database and store are waited out:
    a finished picture is kept in memory until it is stored.
    """

    def __init__(self, settings: Settings, database: Database | None = None, store: Store | None = None):
        self._settings = settings
        self._own_database = database is None
        self.database = Database(settings.database_url) if database is None else database
        self.store = open_store(settings.store_url) if store is None else store
        self.queue = Queue(self.database, max_queue=settings.max_queue)
        self.stopping = threading.Event()
        self.now = threading.Event()
        self._message: str | None = None
        self._state = "idle"
        self.loaded = Loaded(
            settings.models,
            device=settings.device,
            dtype=settings.dtype,
            backend=settings.backend,
            backend_precision=settings.backend_precision,
            offload=settings.offload,
            budget=settings.memory,
        )

    def keep_memory(self) -> None:
        """Have this process, which draws alone, keep the memory of a picture for the next one."""
        if not self._settings.offload:
            from unclip.generate.offload import keep_freed_memory

            keep_freed_memory()

    def stop(self, *, now: bool = False) -> None:
        """End after the pictures at work; `now` gives them up within a step, and they wait again."""
        self.stopping.set()
        if now:
            self.now.set()

    def run(self) -> None:
        """Draw until `stop`."""
        self.lease = self.patiently(lambda: Lease(self.database, list(self._settings.models), self._device))
        watch, self.changes = self.database.watch(), self.database.watch()
        self._finisher = Finisher(self)
        done = threading.Event()
        pulse = threading.Thread(target=self._pulse, args=(done,), name="heartbeat", daemon=True)
        pulse.start()
        try:
            while not self.stopping.is_set():
                if not self._step():
                    watch.wait(1.0, self.stopping)
        finally:
            self._finisher.close()
            done.set()
            pulse.join()
            watch.close()
            self.changes.close()
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
    def _device(self) -> str:
        from unclip.generate.placement import best_device

        return self._settings.device or str(best_device())

    @property
    def _batch(self) -> int:
        if self._settings.batch is not None:
            return self._settings.batch
        return 1 if self._device.startswith("cpu") else 8

    def _draw(self, held: Sequence[Task]) -> None:
        follower = Follower(self, held)
        try:
            self._run(held, follower)
        except Cancelled:
            self._release(follower, 1 << 30)
        except Unavailable as error:
            logger.warning("pictures wait again: %s", error.message)
            self._release(follower, self._settings.max_attempts)
            self.stopping.wait(1.0)
        except (ModelError, FileNotFoundError) as error:
            # The message names folders of this machine, which clients need not know.
            logger.error("the model %s cannot be used: %s", held[0].model, error)
            self._fail(follower, f"the model {held[0].model!r} cannot be used: the worker's log says why")
        except (RequestError, Unsupported, PictureError) as error:
            logger.warning("a job of the kind %s cannot be drawn: %s", held[0].kind, type(error).__name__)
            self._fail(follower, str(error))
        except Exception as error:
            self._fail(follower, self._surprise(error))

    def _release(self, follower: Follower, max_attempts: int) -> None:
        """Have the pictures wait again that are not drawn; those that are drawn are being stored."""
        ids = [task.id for task in follower.left]
        self.patiently(lambda: self.queue.release(ids, self.lease.id, max_attempts=max_attempts))

    def _fail(self, follower: Follower, text: str) -> None:
        ids = [task.id for task in follower.left]
        self.patiently(lambda: self.queue.fail(ids, self.lease.id, text))

    def _surprise(self, error: Exception) -> str:
        """Message for a job that met an error of the program, or ran out of memory; the worker goes on."""
        memory = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
        if memory:
            self.loaded.drop()
            text = f"{NO_MEMORY}: ask for a smaller size, or start with --offload"
        else:
            text = f"{NOT_DRAWN} ({type(error).__name__})"
        logger.error("%s", text, exc_info=None if memory else error)
        return text

    def _run(self, held: Sequence[Task], follower: Follower) -> None:
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
            self._finisher.put(task, image, prompt_of(request), seconds)
            follower.finished = index + 1

    def _source(self, id: str) -> bytes:
        for name in (upload_name(id), picture_name(id)):
            try:
                return self.store.get(name)
            except KeyError:
                continue
        raise RequestError(f"the given picture {id} is no longer there")

    def patiently(self, action: Callable[[], Any]) -> Any:
        """Result of an action that is tried until database and store can be used, or the worker must end at once."""
        pause = 0.2
        while True:
            try:
                result = action()
                self._message = None
                return result
            except Unavailable as error:
                self._message = error.message
                if self.now.wait(pause):
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
