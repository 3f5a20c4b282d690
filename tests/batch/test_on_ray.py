"""A Ray cluster of two nodes, one killed midway, gives byte for byte what one process gives."""

import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unclip.batch.dedup import Dedup, dedup
from unclip.batch.draw import DrawWork
from unclip.batch.embed import embed_work
from unclip.batch.embedded import Embedded
from unclip.batch.filter import Limits, filter_by
from unclip.batch.heads import open_head
from unclip.batch.work import run_here
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.open import open_stream
from unclip.data.stream.sidecar import IMAGE, Origin, encode_sidecar
from unclip.data.stream.store import LocalStore
from unclip.generate.operations import Generate
from unclip.stages.sampling import DecoderSampling, PriorSampling, Sampling


@pytest.mark.slow
def test_embeddings_with_a_node_killed_midway(tmp_path, write_shards):
    pytest.importorskip("ray.data")
    folder = write_shards(tmp_path / "data", count=120, per_shard=10)
    dataset = open_stream(folder, cache=DiskCache(tmp_path / "cache", 50 << 20))
    alone = embed_work(dataset, tmp_path / "alone", model="artwork", batch=4, device="cpu")
    assert run_here(alone).done == 12

    many = embed_work(dataset, tmp_path / "many", model="artwork", batch=4, device="cpu")
    result = on_two_nodes(many, tmp_path)
    assert result["failed"] == {}
    assert result["done"] == 12
    assert result["nodes_before"] == 2, "both nodes were at work"
    assert result["encoded_before"] < 36, "the node was killed before the end"
    assert result["alive"] == 1
    assert read_all(tmp_path / "many") == read_all(tmp_path / "alone")


@pytest.mark.slow
def test_pictures_with_a_node_killed_midway(tmp_path):
    """As `unclip generate --prompts FILE --ray ADDRESS` draws them."""
    pytest.importorskip("ray.data")
    sampling = Sampling(prior=PriorSampling(steps=2), decoder=DecoderSampling(steps=2))
    requests = [
        Generate(prompt=f"a red car, number {number}", seed=number, size=64, sampling=sampling)
        for number in range(36)
    ]

    def work(folder: str) -> DrawWork:
        (tmp_path / folder).mkdir()
        files = [tmp_path / folder / f"{number}.png" for number in range(36)]
        return DrawWork(requests, files, model="artwork", batch=2, device="cpu")

    assert run_here(work("alone")).done == 18
    result = on_two_nodes(work("many"), tmp_path)
    assert result["failed"] == {}
    assert result["done"] == 18
    assert result["nodes_before"] == 2, "both nodes were at work"
    assert result["encoded_before"] < 18, "the node was killed before the end"
    assert result["alive"] == 1
    assert read_all(tmp_path / "many") == read_all(tmp_path / "alone")


@pytest.mark.slow
def test_selections_with_a_node_killed_midway(tmp_path, write_shards):
    pytest.importorskip("ray.data")
    folder, cache = (
        write_shards(tmp_path / "data", count=240, per_shard=10),
        DiskCache(tmp_path / "c", 50 << 20),
    )
    dataset = open_stream(folder, cache=cache)
    origin, rows = Origin(kind=IMAGE, model="ab" * 32, preprocessing=""), np.random.default_rng(0)
    for number, unit in enumerate(dataset.units):
        some = rows.normal(size=(unit.size, 3)).astype(np.float16)
        data = encode_sidecar(origin, unit.name, dataset.keys(number), some, np.ones(unit.size, bool))
        LocalStore(folder).put(origin.name(unit.name), data)
    embedded = Embedded(dataset, folder, cache)
    save_file({"weight": torch.ones(1, 3)}, tmp_path / "head.safetensors")
    head = open_head(str(tmp_path / "head.safetensors"))
    jobs = {
        "filter": partial(filter_by, embedded, head, Limits(at_least=0)),
        "dedup": partial(dedup, embedded, Dedup(threshold=0.95, blocks=20), scratch=tmp_path),
    }
    for name, job in jobs.items():
        job(out=tmp_path / f"{name} alone")
        (tmp_path / f"run of {name}").mkdir()
        result = on_two_nodes(partial(job, out=tmp_path / name), tmp_path / f"run of {name}")
        assert result["failed"] == {}
        assert result["nodes_before"] == 2, "both nodes were at work"
        assert result["encoded_before"] < result["done"], "the node was killed before the end"
        assert result["alive"] == 1
        assert read_all(tmp_path / name) == read_all(tmp_path / f"{name} alone")


def on_two_nodes(work: Any, folder: Path) -> dict[str, Any]:
    """What `two_nodes.py` reports of a work."""
    file = folder / "work.pickle"
    file.write_bytes(pickle.dumps(work))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("two_nodes.py"), file, folder / "nodes.txt"],
        capture_output=True,
        text=True,
        timeout=540,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
