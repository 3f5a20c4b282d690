"""The library: pictures that were drawn or given, stars, collections, deletes with undo, and canvases of the editor."""

import json
import logging
import time
import uuid
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from unclip.images.errors import PictureError
from unclip.serve.database import Database
from unclip.serve.errors import NotFound, Unavailable
from unclip.serve.settings import Settings
from unclip.serve.states import OPEN_JOBS, emit
from unclip.serve.store import Store, picture_name, upload_name
from unclip.serve.tables import canvases, jobs, live, members, parents, pictures, tasks, uploads

logger = logging.getLogger(__name__)

_DAY = 86_400.0
_KEPT_EVENTS = 100_000
_KEPT_UPLOADS_DAYS = 7.0
_ROWS = 500
"""Rows that one statement names."""


class Library:
    """Pictures in database and store."""

    def __init__(self, database: Database, store: Store, settings: Settings):
        self.database, self.store, self.settings = database, store, settings

    def upload(self, data: bytes) -> dict[str, Any]:
        """A given picture, checked, and kept as PNG with its pixels and its provenance alone. Raises `PictureError`."""
        from unclip.generate.composed import recorded
        from unclip.images import open_picture
        from unclip.images.metadata import encode_png

        side = self.settings.max_side
        image = open_picture(data, max_pixels=side * side)
        if max(image.size) > side:
            raise PictureError(
                f"the picture is {image.width}x{image.height}: give at most {side} pixels a side"
            )
        provenance = recorded(data)
        encoded = encode_png(image, provenance=provenance, source_type=None)
        id = str(uuid.uuid4())
        self.store.put(upload_name(id), encoded)
        record = {
            "id": id,
            "width": image.width,
            "height": image.height,
            "has_alpha": image.mode == "RGBA",
            "bytes": len(encoded),
        }
        request = _request_of(provenance)
        try:
            with self.database.write() as connection:
                connection.execute(
                    insert(uploads).values(
                        **record,
                        request=None if request is None else json.dumps(request),
                        created=time.time(),
                    )
                )
        except Unavailable:
            self.store.delete(upload_name(id))
            raise
        return {**record, "request": request}

    def source(self, id: str) -> bytes:
        """PNG of an upload or of a picture. Raises `NotFound`."""
        for name in (upload_name(id), picture_name(id)):
            try:
                return self.store.get(name)
            except KeyError:
                continue
        raise NotFound("picture", id)

    def file(self, id: str) -> bytes:
        """PNG of a drawn picture, with its provenance. Raises `NotFound`."""
        try:
            return self.store.get(picture_name(id))
        except KeyError:
            raise NotFound("picture", id) from None

    def is_deleted(self, id: str) -> bool:
        """Whether a picture is deleted, or never was there."""
        query = select(pictures.c.id).where((pictures.c.id == id) & pictures.c.deleted.is_(None))
        with self.database.read() as connection:
            return connection.execute(query).first() is None

    def delete(self, id: str) -> None:
        """Mark a picture as deleted; `restore` undoes it until the settings' days are over. Raises `NotFound`."""
        self._mark(id, time.time())

    def restore(self, id: str) -> None:
        """Undo `delete`. Raises `NotFound`."""
        self._mark(id, None)

    def _mark(self, id: str, deleted: float | None) -> None:
        with self.database.write() as connection:
            found = connection.execute(update(pictures).where(pictures.c.id == id).values(deleted=deleted))
            if not found.rowcount:
                raise NotFound("picture", id)
            emit(connection, "restored" if deleted is None else "deleted", None, id)

    def clean(self) -> None:
        """Remove what is over: deleted pictures, unused given ones, records of old jobs, old events, files without an entry."""
        now = time.time()
        with self.database.write() as connection:
            over = pictures.c.deleted < now - self.settings.undo_days * _DAY
            gone = _ids(connection, select(pictures.c.id).where(pictures.c.deleted.is_not(None) & over))
            for table, column in (
                (members, members.c.picture),
                (parents, parents.c.picture),
                (pictures, pictures.c.id),
            ):
                connection.execute(delete(table).where(column.in_(gone)))
            unused = _unused_uploads(connection, now - _KEPT_UPLOADS_DAYS * _DAY)
            connection.execute(delete(uploads).where(uploads.c.id.in_(unused)))
            running = select(tasks.c.id).where(tasks.c.state == "running")
            connection.execute(delete(live).where(live.c.task.not_in(running)))
            _forget_jobs(connection, now - self.settings.keep_days * _DAY)
            _forget_events(connection)
        for name in [*map(picture_name, gone), *map(upload_name, unused)]:
            self.store.delete(name)
        self._sweep()

    def _sweep(self) -> None:
        """Remove files that no entry names: their writers ended before they could make one."""
        names = {name[-40:-4]: name for name in self.store.names(older=_DAY)}
        ids = list(names)
        for first in range(0, len(ids), 500):
            some = ids[first : first + 500]
            with self.database.read() as connection:
                known = {
                    id
                    for table in (pictures, uploads)
                    for id in _ids(connection, select(table.c.id).where(table.c.id.in_(some)))
                }
                open_tasks = tasks.c.id.in_(some) & tasks.c.state.in_(("waiting", "running"))
                known |= set(_ids(connection, select(tasks.c.id).where(open_tasks)))
            for id in set(some) - known:
                logger.info("removing the file %s, which nothing names", names[id])
                self.store.delete(names[id])


def _ids(connection: Connection, query: Any) -> list[str]:
    return list(connection.execute(query).scalars())


def _unused_uploads(connection: Connection, before: float) -> list[str]:
    """Given pictures of before a time that no picture was made from, no open job takes and no canvas shows."""
    made_from = select(parents.c.source)
    old = (uploads.c.created < before) & uploads.c.id.not_in(made_from)
    taken = " ".join(_ids(connection, select(jobs.c.sources).where(jobs.c.state.in_(OPEN_JOBS))))
    found = [id for id in _ids(connection, select(uploads.c.id).where(old)) if id not in taken]

    def is_on_a_canvas(id: str) -> bool:
        query = select(canvases.c.id).where(canvases.c.state.contains(id)).limit(1)
        return connection.execute(query).first() is not None

    return [id for id in found if not is_on_a_canvas(id)]


def _forget_jobs(connection: Connection, before: float) -> None:
    """Remove jobs that ended before a time, with their tasks and events; their pictures stay, with their provenance."""
    from unclip.serve.tables import events

    while True:
        over = jobs.c.state.not_in(OPEN_JOBS) & (jobs.c.ended < before)
        ids = _ids(connection, select(jobs.c.id).where(over).limit(_ROWS))
        for table, column in (
            (events, events.c.job),
            (live, live.c.job),
            (tasks, tasks.c.job),
            (jobs, jobs.c.id),
        ):
            connection.execute(delete(table).where(column.in_(ids)))
        if len(ids) < _ROWS:
            return


def _forget_events(connection: Connection) -> None:
    from unclip.serve.tables import events

    newest = connection.execute(select(func.max(events.c.id))).scalar() or 0
    over = select(jobs.c.id).where(jobs.c.ended.is_(None))
    connection.execute(
        delete(events).where((events.c.id < newest - _KEPT_EVENTS) & events.c.job.not_in(over))
    )


def _request_of(provenance: dict[str, Any] | None) -> dict[str, Any] | None:
    """The request of provenance that can be read; None where there is none, or several."""
    from unclip.generate.composed import is_composed
    from unclip.generate.replay import read_replay
    from unclip.generate.request import compact

    return None if provenance is None or is_composed(provenance) else compact(read_replay(provenance).request)
