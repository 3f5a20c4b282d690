"""Checkpoints of several processes are written whole or not at all, and the newest that is whole is loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FIRST = "samples-000000000008"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `checkpoint_faults.py` wrote down, by name."""
    folder = tmp_path_factory.mktemp("faults")
    call = "import checkpoint_faults, sys; checkpoint_faults.main(sys.argv[1])"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-c", call, folder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    read = {one.stem: json.loads(one.read_text()) for one in folder.glob("*.json")}
    assert read.pop("statuses") == [[0, 0], [0, -9], [0, 0], [0]], done.stderr[-4000:]
    return read


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk(found, rank):
    report = found[f"full-{rank}"]
    first, second, third = report["messages"]
    assert (first, third) == ("", "")
    assert second.startswith("DiskFull")
    assert "there is no room for this process's part of the checkpoint" in second
    assert report["between"] == [FIRST]
    assert (report["loaded"], report["samples"]) == (FIRST, 8)
    assert report["after"] == [FIRST, "samples-000000000024"]


def test_a_process_that_is_killed_while_it_writes(found):
    assert "killed-0" in found, "the other process ends with an error"
    group = [found[f"goes-on-2-{rank}"] for rank in range(2)]
    for report in group:
        assert report["before"] == [f".writing-{FIRST[:-2]}16", FIRST]
        assert (report["loaded"], report["same"], report["message"]) == (FIRST, True, "")
        assert report["after"] == [FIRST, "samples-000000000032"]
    # A single process finds the group's.
    assert found["goes-on-1-0"]["loaded"] == "samples-000000000032"
    assert found["goes-on-1-0"]["message"] == ""
