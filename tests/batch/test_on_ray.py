"""A Ray cluster of two nodes, one killed midway, gives byte for byte what one process gives."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unclip.batch.draw import DrawWork
from unclip.batch.embed import embed_work
from unclip.batch.work import run_here
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.open import open_stream
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
