"""The runs that several tests compare."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def trained(folder: Path, plan: str) -> Path:
    """A folder in which `cases.py` has trained the cases of a plan."""
    # Not as the main program, which the processes that decode pictures would import again.
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        "import cases, sys; cases.main(*sys.argv[1:])",
        folder,
        plan,
    ]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs that are compared by default."""
    return trained(tmp_path_factory.mktemp("runs"), "quick")


@pytest.fixture(scope="session")
def wide_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the other stages, and HSDP of them all."""
    return trained(tmp_path_factory.mktemp("wide"), "wide")
