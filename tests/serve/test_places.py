"""The same queue over SQLite and PostgreSQL, folder and S3, with workers of their own beside the server."""

import contextlib
import os
import signal
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.serve.processes import Server, postgres, postgres_programs, s3, s3_program, until, worker
from unclip.generate.model import Model
from unclip.generate.operations import Generate
from unclip.stages.sampling import DecoderSampling, Sampling


@contextlib.contextmanager
def places(kind: str, folder: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Options and environment of a database and a store."""
    with contextlib.ExitStack() as stack:
        if kind == "sqlite and folder":
            yield ["--database", f"sqlite:///{folder / 'queue.db'}", "--store", str(folder / "files")], {}
            return
        url = stack.enter_context(postgres())
        env = stack.enter_context(s3(folder / "s3.log"))
        yield ["--database", url, "--store", "s3://pictures/home"], env


KINDS = [
    # By default, threads share a database (test_degraded.py), and killed servers are followed by others (test_killed.py).
    pytest.param("sqlite and folder", marks=pytest.mark.slow),
    pytest.param(
        "postgresql and s3",
        marks=[
            pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed"),
            pytest.mark.skipif(s3_program() is None, reason="moto_server is not installed"),
        ],
    ),
]


@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_share_a_queue_and_one_is_killed(
    kind: str, tmp_path: Path, tiny_folder: Path, tiny_model: Model
):
    steps, model = 100, ["--model", f"tiny={tiny_folder}"]
    sampling = Sampling(decoder=DecoderSampling(steps=steps))
    with (
        places(kind, tmp_path) as (options, env),
        Server(tmp_path / "server", tiny_folder, "--workers", "0", *options, env=env) as server,
    ):
        ids = [server.submit(n=2, seed=k, sampling={"decoder": {"steps": steps}}) for k in range(3)]
        log = tmp_path / "worker.log"
        with worker(log, *model, *options, env=env) as first, worker(log, *model, *options, env=env):
            until(lambda: len(server.call("/api/queue")["workers"]) == 2)
            until(lambda: server.call(f"/api/jobs/{ids[0]}")["done"])
            os.kill(first.pid, signal.SIGKILL)
            until(lambda: all(server.call(f"/api/jobs/{id}")["ended"] for id in ids), 120)
        made = []
        for seed, id in enumerate(ids):
            job = server.call(f"/api/jobs/{id}")
            assert (job["state"], job["done"]) == ("done", 2)
            expected = tiny_model.run(Generate(prompt="a red apple", n=2, seed=seed, sampling=sampling))
            for picture, image in zip(job["pictures"], expected, strict=True):
                data = server.call(picture["url"])
                assert Image.open(BytesIO(data)).tobytes() == image.image.tobytes()
                made.append(picture["id"])
        listed = server.call("/api/pictures")
        assert (listed["total"], len(set(made))) == (6, 6)
        checks = server.call("/api/system")["checks"]
        assert (checks["database"], checks["store"]) == ("ok", "ok")
