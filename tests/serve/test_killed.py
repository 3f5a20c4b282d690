"""kill -9 of workers and servers under load: no job is lost, no picture is made twice, no file is half."""

import os
import random
import signal
import sqlite3
import time
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.serve.processes import Server, until
from unclip.generate.model import Model
from unclip.generate.operations import Generate
from unclip.stages.sampling import DecoderSampling, Sampling

JOBS, PICTURES, STEPS = 3, 3, 40


def load(server: Server, jobs: int = JOBS) -> list[str]:
    steps = {"decoder": {"steps": STEPS}}
    return [server.submit(n=PICTURES, seed=10 * k, sampling=steps) for k in range(jobs)]


def check(server: Server, ids: list[str], model: Model) -> None:
    """Every picture of every job is there once, whole, and the one that the model makes."""
    until(lambda: all(server.call(f"/api/jobs/{id}")["ended"] for id in ids), 120)
    sampling = Sampling(decoder=DecoderSampling(steps=STEPS))
    for number, id in enumerate(ids):
        job = server.call(f"/api/jobs/{id}")
        assert (job["state"], job["done"], job["errors"]) == ("done", PICTURES, [None] * PICTURES)
        request = Generate(prompt="a red apple", n=PICTURES, seed=10 * number, sampling=sampling)
        for picture, expected in zip(job["pictures"], model.run(request), strict=True):
            data = server.call(picture["url"])
            assert Image.open(BytesIO(data)).tobytes() == expected.image.tobytes()
    with sqlite3.connect(server.folder / "unclip.db") as database:
        counts = "SELECT picture, count(*) FROM events WHERE type = 'picture' GROUP BY picture"
        assert {count for _, count in database.execute(counts)} == {1}
        named = {row[0] for row in database.execute("SELECT id FROM pictures")}
        assert database.execute("SELECT count(*) FROM live").fetchone() == (0,)
        assert [row[0] for row in database.execute("SELECT id FROM jobs ORDER BY position")] == ids
    database.close()
    assert {file.stem for file in server.folder.glob("pictures/pictures/*/*.png")} == named


def kill_worker(server: Server) -> None:
    (pid,) = until(server.workers)
    os.kill(pid, signal.SIGKILL)


def kill_server(server: Server, model: Path) -> Server:
    """The server is killed alone; its worker ends by itself. A new server goes on."""
    workers = until(server.workers)
    os.kill(server.process.pid, signal.SIGKILL)
    server.wait()
    again = Server(server.folder, model)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 30)
    return again


def under_way(server: Server) -> bool:
    queue = server.call("/api/queue")
    return queue["running"] > 0


def test_jobs_survive_the_end_of_worker_and_server(tmp_path: Path, tiny_folder: Path, tiny_model: Model):
    with Server(tmp_path, tiny_folder) as server:
        ids = load(server, 2)
        until(lambda: under_way(server))
        kill_worker(server)
        until(lambda: server.call(f"/api/jobs/{ids[0]}")["done"])
        with kill_server(server, tiny_folder) as again:
            check(again, ids, tiny_model)
            check_orderly_end(again)


def check_orderly_end(server: Server) -> None:
    """SIGTERM: the picture at work is finished, `/readyz` says 503 meanwhile, and what waits stays in the queue."""
    first = server.submit(n=1, sampling={"decoder": {"steps": 600}})
    second = server.submit(n=1, seed=2)
    until(lambda: server.call(f"/api/jobs/{first}")["state"] == "running")
    server.process.send_signal(signal.SIGTERM)
    until(lambda: not_ready(server))
    assert server.wait() == 0
    with sqlite3.connect(server.folder / "unclip.db") as database:
        states = dict(database.execute("SELECT id, state FROM jobs").fetchall())
        assert database.execute("SELECT count(*) FROM workers").fetchone() == (0,)
    database.close()
    assert (states[first], states[second]) == ("done", "waiting")


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_jobs_survive_at_any_moment(moment: int, tmp_path: Path, tiny_folder: Path, tiny_model: Model):
    chance = random.Random(moment)
    server = Server(tmp_path, tiny_folder)
    with server:
        ids = load(server)
        until(lambda: under_way(server))
        time.sleep(chance.uniform(0, 3))
        if moment % 2:
            kill_worker(server)
            check(server, ids, tiny_model)
        else:
            with kill_server(server, tiny_folder) as again:
                check(again, ids, tiny_model)


def not_ready(server: Server) -> bool:
    from urllib.error import HTTPError

    try:
        server.call("/readyz")
    except HTTPError as error:
        error.close()
        return error.code == 503
    except OSError:
        return True  # it has ended already
    return False


def test_second_signal_ends_at_once_and_without_traceback(tmp_path: Path, tiny_folder: Path):
    with Server(tmp_path / "data", tiny_folder) as server:
        until(server.workers)
        id = server.submit(n=1, sampling={"decoder": {"steps": 1000}})
        until(lambda: server.call(f"/api/jobs/{id}")["state"] == "running")
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGINT)
        server.wait(15)
    assert "Traceback" not in server.log.read_text()
