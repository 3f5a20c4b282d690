"""A backend without a queue: a real model on one thread, for tests of the API alone."""

import asyncio
import io
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from unclip.errors import Cancelled
from unclip.generate.model import Model
from unclip.serve.openai.backend import Drawn, Preview, Served


class Direct:
    """Draws with a model, one job at a time, and keeps its pictures in memory.

    `hold`, an event, makes jobs wait before every step until it is set.
    """

    def __init__(self, model: Model):
        self.model = model
        self.thread = ThreadPoolExecutor(1)
        self.hold = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Forget all jobs, after the last one has ended."""
        self.hold.set()
        self.thread.submit(lambda: None).result()
        self.jobs, self.pictures, self.cancelled = {}, {}, {}
        self.ended: dict[str, str] = {}
        self.fail: Exception | None = None
        self.hold.set()
        self.seen: list[tuple] = []

    async def models(self):
        return [
            Served(name=self.model.name, sizes=tuple(self.model.sizes), default_size=self.model.sizes[-1])
        ]

    async def submit(self, request, sources, *, model, previews, owner):
        if self.fail is not None:
            raise self.fail
        self.model.check(request, len(sources))
        self.seen.append((request, sources, model, previews, owner))
        job, loop, queue = uuid.uuid4().hex, asyncio.get_running_loop(), asyncio.Queue()
        self.jobs[job], self.cancelled[job] = queue, threading.Event()

        def put(event) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, event)

        def progress(step) -> None:
            while not self.hold.wait(0.01):
                if self.cancelled[job].is_set():
                    break
            if self.cancelled[job].is_set():
                raise Cancelled
            for index, image in enumerate(step.previews() if previews else ()):
                buffer = io.BytesIO()
                image.save(buffer, format="PNG")
                # Of the whole job; for one picture, of this.
                put(
                    Preview(
                        picture=step.first + index, png=buffer.getvalue(), fraction=min(step.fraction, 0.999)
                    )
                )

        def run() -> None:
            try:
                for index, image in enumerate(self.model.run(request, sources, on_progress=progress)):
                    id = uuid.uuid4().hex
                    self.pictures[id] = image.png()
                    put(Drawn(picture=index, id=id, seed=image.seed, warnings=image.warnings))
                self.ended[job] = "done"
                put(None)
            except Cancelled:
                self.ended[job] = "cancelled"
            except Exception as error:
                self.ended[job] = "failed"
                put(error)

        self.thread.submit(run)
        return job

    async def events(self, job):
        while (event := await self.jobs[job].get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    async def cancel(self, job):
        self.cancelled[job].set()

    async def picture(self, id):
        return self.pictures.get(id)
