"""Requests of several clients drawn together."""

from io import BytesIO

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from unclip.generate.model import Model
from unclip.generate.operations import Generate
from unclip.serve.app import create_app
from unclip.serve.settings import Settings


def test_pictures_of_a_batch_are_those_of_each_request_alone(tmp_path, tiny_folder, tiny_model: Model):
    settings = Settings(
        folder=str(tmp_path), models={"tiny": str(tiny_folder)}, device="cpu", workers=0, threads=1, batch=8
    )
    requests = [
        {"kind": "generate", "prompt": prompt, "n": n, "seed": seed}
        for prompt, n, seed in (("a red apple", 2, 1), ("a blue cat", 1, 2), ("two green cars", 3, 3))
    ]
    with TestClient(create_app(settings)) as client:
        client.post("/api/queue/pause")
        ids = [client.post("/api/jobs", json={"request": one}).json()["id"] for one in requests]
        client.post("/api/queue/resume")
        jobs = []
        for id in ids:
            while (job := client.get(f"/api/jobs/{id}").json())["ended"] is None:
                continue
            jobs.append(job)
        # They began at one time, as one batch.
        assert len({job["started"] for job in jobs}) == 1
        for request, job in zip(requests, jobs, strict=True):
            assert job["state"] == "done"
            alone = tiny_model.run(Generate(prompt=request["prompt"], n=request["n"], seed=request["seed"]))
            for picture, expected in zip(job["pictures"], alone, strict=True):
                made = np.asarray(Image.open(BytesIO(client.get(picture["url"]).content)), dtype=int)
                # To the rounding of larger batches.
                assert np.abs(made - np.asarray(expected.image, dtype=int)).max() <= 1
                assert (picture["prompt"], picture["seed"]) == (request["prompt"], expected.seed)
