"""Training on an object store, end to end: its errors change nothing, and of a shard that vanishes only its samples are lost."""

from pathlib import Path

import pytest
import torch

from unclip import recipes
from unclip.config import override
from unclip.data.stream.faults import RETRIED, VANISHED
from unclip.train.loop import Run, train
from unclip.train.run_folder import RunFolder
from unclip.train.task import build_task

pytest.importorskip("obstore")
SMALL = (
    "model.embedding=8",
    "model.vision.width=16",
    "model.vision.layers=1",
    "model.text.width=16",
    "model.text.layers=1",
    "vocabulary=540",
    "samples=48",
    "batch=8",
    "data.reading=streamed",
    "data.workers=0",
    "data.bad_share=0.9",
)


def config(path: object, out: Path, *further: str):
    settings = [*SMALL, f"data.path={path}", f"out={out}", f"data.cache={out}-cache", *further]
    return override(recipes.get("tiny", "clip"), settings)


def weights(out: Path) -> bytes:
    return (out / "model" / "clip.safetensors").read_bytes()


def test_errors_of_the_store_change_no_weight(tmp_path, s3, made):
    shards = made.tars(tmp_path / "shards", count=60)
    url = s3.upload(shards)
    train(config(shards, tmp_path / "disk"), device="cpu")
    s3.failing += [503]
    here = torch.device("cpu")
    # A cache of a few pictures: what was read once is read again.
    chosen = config(url, tmp_path / "store", "data.cache_gib=0.00003")
    run = Run(chosen, build_task(chosen, here), here, RunFolder(chosen))
    step = run.step

    def failing():
        s3.failing.append(500)
        return step()

    run.step = failing
    run.finish()
    assert run.batches.train.faults.counts[RETRIED] >= 1
    assert weights(tmp_path / "store") == weights(tmp_path / "disk")


def test_a_shard_that_vanishes_during_a_run_costs_its_samples_alone(tmp_path, s3, made):
    url = s3.upload(made.tars(tmp_path / "shards", count=60))
    # A cache of a few pictures: what was read once is read again.
    chosen = config(url, tmp_path / "run", "data.cache_gib=0.00003")
    here = torch.device("cpu")
    run = Run(chosen, build_task(chosen, here), here, RunFolder(chosen))
    run.go(until=16)
    s3.delete(url, "set-train-00002.tar")
    keys = []
    read = run._batch

    def noted(numbers):
        found = read(numbers)
        keys.extend(run.batches.key(int(number)) for number in numbers)
        return found

    run.prefetcher._make = noted
    run.finish()
    assert run.batches.train.faults.counts[VANISHED] >= 1
    assert len(keys) >= 32
    assert not any(key.startswith("set-train-00002") for key in keys)
    assert weights(tmp_path / "run")
