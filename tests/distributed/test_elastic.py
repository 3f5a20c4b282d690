"""A process that is killed with `kill -9` under torchrun: the run goes on from the last checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from unclip.config import override, to_dict
from unclip.train.config import read_config


def test_a_killed_process_costs_no_sample_and_no_bit(runs, tmp_path):
    straight, out = runs / "upsampler" / "ddp2", tmp_path / "killed"
    config = read_config(json.loads((straight / "config.json").read_text()))
    config = override(config, [f"out={out}", "checkpoint_seconds=0"])
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict(config)))
    launch = (
        "-m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 1 --monitor-interval 0.1"
    )
    command = [sys.executable, *launch.split(), Path(__file__).with_name("elastic.py"), file]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300
    )
    assert done.returncode == 0, done.stderr[-6000:]
    first, second = (steps(out, attempt) for attempt in range(2))
    # The attempt that was killed started at the checkpoint from which the next one goes on.
    (begun,) = {min(second)}
    assert begun in (12, 24)
    assert 24 in first
    for before in range(0, begun, 12):
        assert first[before] == list(range(before, before + 12))
    taken = [number for start in sorted(second) for number in second[start]]
    assert taken == list(range(begun, 50))
    for part in ("model/upsampler.safetensors",):
        torch.testing.assert_close(load_file(out / part), load_file(straight / part), rtol=0, atol=0)
    numbers = [json.loads(line)["samples"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(numbers)) == [12, 24, 36, 48, 50]


def steps(out: Path, attempt: int) -> dict[int, list[int]]:
    """Samples seen before a step of an attempt -> the numbers of the samples that all processes read for it."""
    found: dict[int, list[int]] = {}
    for file in sorted(out.glob(f"steps-{attempt}-*.jsonl")):
        for line in file.read_text().splitlines():
            before, numbers = json.loads(line)
            found[before] = sorted(set(found.get(before, []) + numbers))
    return found
