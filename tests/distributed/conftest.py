"""The runs that several tests compare."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `cases.py` has trained."""
    folder = tmp_path_factory.mktemp("runs")
    # Not as the main program, which the processes that decode pictures would import again.
    command = [sys.executable, "-W", "error", "-c", "import cases, sys; cases.main(sys.argv[1])", folder]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder
