"""Weights are read once: loading a model takes its own size, not twice that."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unclip.checkpoints.io import write_weights
from unclip.checkpoints.stream import Stream

MEASURE = """
import sys
import torch
from unclip.checkpoints import stream

def peak():
    # Not getrusage: what it says is at least what the parent had.
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

stream.WINDOW = 4 << 20
file = stream.Stream(sys.argv[1])
before = peak()
weights = {name: file.get_tensor(name) for name in file.names}
size = sum(weight.nbytes for weight in weights.values())
print((peak() - before) / size)
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "weights.safetensors"
    write_weights(path, {f"layer {index}": torch.full((1 << 20,), float(index)) for index in range(24)})
    return path


def test_a_weight_is_what_was_written(file):
    stream = Stream(file)
    assert len(stream.names) == 24
    assert torch.equal(stream.get_tensor("layer 7"), torch.full((1 << 20,), 7.0))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_reading_all_takes_little_more_than_their_size(file):
    run = subprocess.run([sys.executable, "-c", MEASURE, file], capture_output=True, text=True, check=True)
    assert 0.8 < float(run.stdout) < 1.3
