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
    program = Path(__file__).with_name("cases.py")
    command = [sys.executable, "-W", "error", program, folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder
