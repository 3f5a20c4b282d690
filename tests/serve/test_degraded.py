"""Trouble below the server: it says so, waits, and loses nothing."""

import contextlib
import random
import resource
import sqlite3
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.serve.processes import until
from unclip.serve.app import create_app
from unclip.serve.database import Database
from unclip.serve.errors import Unavailable
from unclip.serve.leases import Lease, Reaper, is_gone, process_mark, this_host
from unclip.serve.loaded import Loaded
from unclip.serve.logs import WithoutPrompts
from unclip.serve.queue import Queue
from unclip.serve.queue_records import Drawn, NewJob, Note
from unclip.serve.settings import Settings


def submit(client: TestClient, **request: Any) -> str:
    answer = client.post(
        "/api/jobs", json={"request": {"kind": "generate", "prompt": "a red apple", **request}}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def noise(side: int) -> bytes:
    buffer = BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side * side)).save(buffer, "PNG")
    return buffer.getvalue()


@contextlib.contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Another program holds the database's lock."""
    connection = sqlite3.connect(Path(settings.folder) / "unclip.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_locked_database_delays_pictures_and_loses_none(client: TestClient, finished, settings: Settings):
    id = submit(client, n=2, sampling={"decoder": {"steps": 200}})
    until(lambda: client.get(f"/api/jobs/{id}").json()["state"] == "running")
    with locked(settings):
        time.sleep(1.0)
        assert client.get(f"/api/jobs/{id}").status_code == 200
    assert finished(id)["done"] == 2


def test_database_that_stays_locked_is_reported(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'one.db'}", busy=0.1)
    with locked(Settings(folder=str(tmp_path))):
        pass
    (tmp_path / "unclip.db").unlink()
    connection = sqlite3.connect(tmp_path / "one.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught, database.write():
        pass
    connection.execute("ROLLBACK")
    connection.close()
    assert (caught.value.status, caught.value.code) == (503, "database_unavailable")
    assert caught.value.headers["Retry-After"]
    with database.write():
        pass
    database.close()


def test_store_that_is_away_holds_the_picture_until_it_is_back(
    client: TestClient, finished, settings: Settings
):
    place = Path(settings.folder) / "pictures" / "pictures"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"in the way")
    id = submit(client)
    until(lambda: client.get("/api/queue").json()["workers"][0]["message"])
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "cannot be written" in answer.json()["checks"]["workers"]
    assert client.get(f"/api/jobs/{id}").json()["state"] == "running"
    place.unlink()
    done = finished(id)
    assert (done["state"], done["done"]) == ("done", 1)
    assert client.get(done["pictures"][0]["url"]).status_code == 200


def test_full_disk_refuses_a_given_picture_and_keeps_no_half(client: TestClient, settings: Settings):
    data = noise(1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) // 2, hard))
    try:
        answer = client.post("/api/uploads", content=data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "disk_full"
    assert not [file for file in Path(settings.folder, "pictures").rglob("*") if file.is_file()]
    assert client.post("/api/uploads", content=data).status_code == 201


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond a kilobyte, as on a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_noticed_before_a_picture_is_drawn(client: TestClient):
    until(lambda: client.get("/readyz").status_code == 200)
    with full_disk():
        answer = client.get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert checks["store"] == "the disk of the pictures is full"
    assert checks["database"] == "the database cannot be used now"
    until(lambda: client.get("/readyz").status_code == 200)


def test_database_that_cannot_be_written_is_noticed(client: TestClient, settings: Settings):
    until(lambda: client.get("/readyz").status_code == 200)
    with locked(settings):
        started = time.monotonic()
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["database"] == "the database cannot be used now"
        assert time.monotonic() - started < 8
    until(lambda: client.get("/readyz").status_code == 200)


def test_store_that_cannot_be_written_is_noticed(client: TestClient, settings: Settings):
    until(lambda: client.get("/readyz").status_code == 200)
    folder = Path(settings.folder, "pictures")
    folder.rename(folder.with_name("away"))
    folder.write_bytes(b"in the way")
    checks = client.get("/readyz").json()["checks"]
    assert (checks["database"], checks["store"][:38]) == ("ok", "the folder of the pictures cannot be w")
    folder.unlink()
    folder.with_name("away").rename(folder)
    assert client.get("/readyz").status_code == 200


def test_job_of_a_client_that_left_while_the_disk_was_full_is_cancelled_later(client: TestClient):
    client.post("/api/queue/pause")
    id = submit(client)
    service: Any = client.app.state.service
    with full_disk():
        service.cancel(id)
        assert client.get(f"/api/jobs/{id}").json()["state"] == "waiting"
    until(lambda: client.get(f"/api/jobs/{id}").json()["state"] == "cancelled")
    service.cancel("00000000-0000-0000-0000-000000000000")


def test_such_a_job_is_cancelled_after_a_restart_too(settings: Settings):
    kept = Path(settings.folder) / "cancel-later"
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(TestClient(create_app(settings)))
        client.post("/api/queue/pause")
        id = submit(client)
        # The disk is full until the server has ended.
        stack.enter_context(full_disk())
        service: Any = client.app.state.service
        service.cancel(id)
        assert kept.read_text() == id
        stack.callback(service.close)
    kept.write_text(f"{id} no-id ../../etc/passwd 00000000-0000-0000-0000-000000000000")
    with TestClient(create_app(settings)) as client:
        until(lambda: client.get(f"/api/jobs/{id}").json()["state"] == "cancelled")
        until(lambda: not kept.exists())


def test_clock_that_jumps_takes_no_work_away(client: TestClient, finished, monkeypatch: pytest.MonkeyPatch):
    real, jumps = time.time, random.Random(1)
    monkeypatch.setattr(time, "time", lambda: real() + jumps.choice((-86_400.0, 0.0, 86_400.0)))
    ids = [submit(client, n=2, seed=k) for k in range(3)]
    for id in ids:
        job = finished(id)
        assert (job["state"], job["done"]) == ("done", 2)
    queue = client.app.state.service.queue
    with queue.database.read() as connection:
        attempts = connection.exec_driver_sql("SELECT max(attempts) FROM tasks").scalar()
    assert attempts == 1


# Without HTTP: leases, and what a late worker may do.


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    database = Database(f"sqlite:///{tmp_path / 'queue.db'}")
    yield Queue(database, max_queue=10)
    database.close()


def add(queue: Queue, n: int = 1, kind: str = "generate", group: str = "g") -> str:
    return queue.submit(
        NewJob(
            kind=kind,
            request={},
            alone=[{"seed": k} for k in range(n)],
            groups=[group] * n,
            sources=[],
            model="m",
        )
    )


DRAWN = Drawn(width=1, height=1, seed=1, prompt="x", provenance={}, size=1, seconds=0.1)


def test_worker_that_stands_still_loses_its_work_and_cannot_finish_it(queue: Queue):
    add(queue)
    slow, quick = Lease(queue.database, ["m"], "cpu"), Lease(queue.database, ["m"], "cpu")
    (task,) = queue.claim(slow.id, ["m"])
    assert queue.claim(quick.id, ["m"]) == []
    reaper = Reaper(queue.database, lease=0.3, max_attempts=3)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        reaper.reap()
        assert quick.beat("idle")
        time.sleep(0.05)
    (again,) = queue.claim(quick.id, ["m"])
    assert (again.id, again.attempts) == (task.id, 2)
    note = Note(task=task.id, job=task.job, index=0, stage="decoder", step=1, steps=2, fraction=0.5)
    assert queue.progress(slow.id, [note]) == {}
    assert not queue.finish(task, slow.id, DRAWN)
    assert queue.finish(again, quick.id, DRAWN)
    assert not queue.finish(again, quick.id, DRAWN)
    assert not slow.beat("idle")


def test_picture_that_kills_its_workers_is_given_up(queue: Queue):
    job = add(queue, 2)
    reaper = Reaper(queue.database, lease=0.01, max_attempts=3)
    for _ in range(3):
        worker = Lease(queue.database, ["m"], "cpu")
        (task,) = queue.claim(worker.id, ["m"])
        assert task.index == 0
        reaper.reap()
        time.sleep(0.05)
        assert reaper.reap() == 1
    (task,) = queue.claim(Lease(queue.database, ["m"], "cpu").id, ["m"])
    assert task.index == 1
    with queue.database.read() as connection:
        query = f"SELECT state, error FROM tasks WHERE job = '{job}' ORDER BY \"index\""
        assert connection.exec_driver_sql(query).all()[0] == (
            "failed",
            "its worker ended 3 times while drawing it",
        )


def test_worker_that_signs_off_gives_its_work_back_uncounted(queue: Queue):
    add(queue)
    first = Lease(queue.database, ["m"], "cpu")
    queue.claim(first.id, ["m"])
    first.leave()
    (task,) = queue.claim(Lease(queue.database, ["m"], "cpu").id, ["m"])
    assert task.attempts == 1


def test_process_that_has_ended_is_seen_at_once():
    import os

    mark = process_mark(os.getpid())
    assert not is_gone(this_host(), os.getpid(), mark)
    assert is_gone(this_host(), os.getpid(), mark + "0")
    assert not is_gone("another machine", os.getpid(), mark + "0")


def test_tasks_of_one_group_are_claimed_together_across_jobs(queue: Queue):
    jobs = [add(queue, 2, group="a"), add(queue, 1, group="b"), add(queue, 3, group="a")]
    worker = Lease(queue.database, ["m"], "cpu")
    assert [task.job for task in queue.claim(worker.id, ["m"], batch=4)] == [jobs[0]] * 2 + [jobs[2]] * 2
    assert [task.job for task in queue.claim(worker.id, ["m"], batch=4)] == [jobs[1]]
    assert queue.claim(worker.id, ["other"], batch=4) == []
    path = add(queue, 3, kind="interpolate", group="")
    assert [task.job for task in queue.claim(worker.id, ["m"])] == [jobs[2]]
    assert [task.job for task in queue.claim(worker.id, ["m"])] == [path] * 3


def test_many_threads_claim_every_task_once(queue: Queue):
    queue.max_queue = 100
    for _ in range(10):
        add(queue, 4)
    claimed: list[str] = []

    def work() -> None:
        worker = Lease(queue.database, ["m"], "cpu")
        while held := queue.claim(worker.id, ["m"]):
            claimed.extend(task.id for task in held)
            assert queue.finish(held[0], worker.id, DRAWN)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 40


def test_least_recently_used_model_makes_room(tiny_folder: Path):
    size = sum(file.stat().st_size for file in tiny_folder.glob("*.safetensors"))
    models = {name: str(tiny_folder) for name in "abc"}
    loaded = Loaded(models, device="cpu", dtype="float32", offload=False, budget=2 * size)
    for name in ("a", "b", "a", "c"):
        loaded.get(name)
    assert list(loaded.sizes) == ["a", "c"]
    assert sum(loaded.sizes.values()) <= 2 * size


def test_clean_removes_what_nothing_names(client: TestClient, settings: Settings):
    import os

    library = client.app.state.service.library
    kept = library.upload(noise(16))["id"]
    stray = library.upload(noise(16))["id"]
    with library.database.write() as connection:
        connection.exec_driver_sql(f"DELETE FROM uploads WHERE id = '{stray}'")
    files = {file.stem: file for file in Path(settings.folder, "pictures").rglob("*.png")}
    assert set(files) == {kept, stray}
    library.clean()
    assert files[stray].exists()  # a file is given a day to be named
    for file in files.values():
        os.utime(file, (0, 0))
    library.clean()
    assert [file.stem for file in Path(settings.folder, "pictures").rglob("*.png")] == [kept]


def test_logs_leave_out_what_warnings_quote():
    import logging

    text = "the prompt 'a secret of \"mine\"'... has 99 tokens, the model reads the first 6"
    record = logging.LogRecord("unclip.generate.stage_runner", logging.WARNING, "", 1, text, (), None)
    WithoutPrompts().filter(record)
    assert "secret" not in record.getMessage()
    assert "99 tokens" in record.getMessage()
