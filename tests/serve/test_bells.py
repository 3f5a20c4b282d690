"""Changes that are heard at once, and what the worker spares itself between two sampling steps."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from unclip.generate.progress import Progress
from unclip.serve import watches
from unclip.serve.app import create_app
from unclip.serve.database import Database
from unclip.serve.settings import Settings
from unclip.serve.store import FolderStore
from unclip.serve.tables import followed

LONG = {"kind": "generate", "prompt": "a red apple", "seed": 1, "sampling": {"decoder": {"steps": 200}}}


@pytest.fixture
def no_looks(monkeypatch):
    """Watches that hear of changes by bells alone."""
    monkeypatch.setattr(watches, "_LOOK_SECONDS", 60.0)
    monkeypatch.setattr(watches, "_HEAR_SECONDS", 60.0)


@pytest.fixture
def database(tmp_path: Path):
    found = Database(f"sqlite:///{tmp_path / 'unclip.db'}")
    yield found
    found.close()


def change(database: Database) -> None:
    with database.write() as connection:
        connection.execute(followed.insert().values(job=os.urandom(8).hex()))


def test_commit_of_another_connection_is_heard_without_looking(database: Database, no_looks):
    watch, other = database.watch(), Database(str(database.url))
    watch.wait(0.0)
    threading.Timer(0.2, change, [other]).start()
    started = time.monotonic()
    assert watch.wait(30.0)
    assert time.monotonic() - started < 20
    assert not watch.wait(0.0)
    other.close()
    watch.close()


def test_progress_is_heard_only_by_who_shows_it(database: Database, no_looks):
    plain, showing = database.watch(), database.watch(notes=True)
    assert plain.heard()
    assert showing.heard()
    with database.note() as connection:
        connection.execute(followed.insert().values(job="a"))
    assert showing.heard()
    assert not plain.heard()
    change(database)
    assert plain.heard()
    for one in (plain, showing):
        one.close()


def test_bell_of_an_ended_process_is_removed(database: Database, tmp_path: Path):
    folder = tmp_path / "unclip.db-bells"
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / "all-of-one-that-was-killed")
    change(database)
    assert list(folder.iterdir()) == []


def test_changes_are_seen_without_bells_too(tmp_path: Path):
    (tmp_path / "unclip.db-bells").write_text("in the way of the folder")
    database = Database(f"sqlite:///{tmp_path / 'unclip.db'}")
    watch = database.watch()
    watch.wait(0.0)
    threading.Timer(0.1, change, [database]).start()
    assert watch.wait(30.0)
    watch.close()
    database.close()


def test_bell_that_is_not_listened_to_never_blocks_who_rings(database: Database):
    watch = database.watch()
    for _ in range(3):
        change(database)
    assert database._bells is not None
    for _ in range(70_000):  # more bytes than a pipe holds
        database._bells.ring()
    assert watch.heard()
    watch.close()


def test_previews_are_made_only_while_somebody_watches(client: TestClient, finished, monkeypatch):
    made: list[tuple[str, int]] = []
    previews = Progress.previews

    def counted(progress: Progress) -> Any:
        made.append((progress.stage, progress.step))
        return previews(progress)

    monkeypatch.setattr(Progress, "previews", counted)
    assert finished(client.post("/api/jobs", json={"request": LONG}).json()["id"])["state"] == "done"
    assert made == []
    id = client.post("/api/jobs", json={"request": LONG | {"n": 2, "seed": 2}}).json()["id"]
    with client.stream("GET", f"/api/jobs/{id}/events") as answer:
        text = answer.read().decode()
    assert "event: preview" in text
    # The second picture was watched from its beginning.
    assert any(stage == "decoder" and step <= 2 for stage, step in made)
    with client.app.state.service.database.read() as connection:
        assert connection.execute(select(followed.c.job)).all() == []


def test_next_picture_is_drawn_while_one_is_stored(settings: Settings, monkeypatch):
    blocked, go_on, put = threading.Event(), threading.Event(), FolderStore.put

    def slow(self: FolderStore, name: str, data: bytes) -> None:
        blocked.set()
        assert go_on.wait(60)
        put(self, name, data)

    monkeypatch.setattr(FolderStore, "put", slow)
    with TestClient(create_app(settings)) as client:
        id = client.post("/api/jobs", json={"request": {"kind": "generate", "prompt": "x", "n": 3}}).json()[
            "id"
        ]
        assert blocked.wait(60)
        end = time.monotonic() + 60
        states: list[str] = []
        while states != ["running"] * 3 and time.monotonic() < end:
            states = client.get(f"/api/jobs/{id}").json()["states"]
        # All three were begun, none is in the library before its file is stored.
        assert states == ["running"] * 3
        assert client.get("/api/pictures").json()["total"] == 0
        go_on.set()
        while (job := client.get(f"/api/jobs/{id}").json())["ended"] is None:
            assert time.monotonic() < end
        assert job["state"] == "done"
        assert client.get("/api/pictures").json()["total"] == 3


def test_picture_that_cannot_be_encoded_fails_alone(client: TestClient, finished, monkeypatch):
    from unclip.generate.image import Image

    png, failed = Image.png, []

    def once(image: Image) -> bytes:
        if not failed:
            failed.append(image)
            raise ValueError("no")
        return png(image)

    monkeypatch.setattr(Image, "png", once)
    job = finished(
        client.post("/api/jobs", json={"request": {"kind": "generate", "prompt": "x", "n": 2}}).json()["id"]
    )
    assert job["states"] == ["failed", "done"]
    assert "could not be drawn (ValueError)" in job["error"]
