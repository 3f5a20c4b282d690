"""A Ray cluster of two nodes, one killed midway, gives byte for byte what one process gives."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from unclip.batch.embed import embed_work
from unclip.batch.work import run_here
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.open import open_stream


@pytest.mark.slow
def test_embeddings_with_a_node_killed_midway(tmp_path, write_shards):
    pytest.importorskip("ray.data")
    folder = write_shards(tmp_path / "data", count=120, per_shard=10)
    dataset = open_stream(folder, cache=DiskCache(tmp_path / "cache", 50 << 20))
    alone = embed_work(dataset, tmp_path / "alone", model="artwork", batch=4, device="cpu")
    assert run_here(alone).done == 12

    many = embed_work(dataset, tmp_path / "many", model="artwork", batch=4, device="cpu")
    file = tmp_path / "work.pickle"
    file.write_bytes(pickle.dumps(many))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("two_nodes.py"), file, tmp_path / "nodes.txt"],
        capture_output=True,
        text=True,
        timeout=540,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["failed"] == {}
    assert result["done"] == 12
    assert result["nodes_before"] == 2, "both nodes were at work"
    assert result["encoded_before"] < 36, "the node was killed before the end"
    assert result["alive"] == 1
    assert read_all(tmp_path / "many") == read_all(tmp_path / "alone")


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
