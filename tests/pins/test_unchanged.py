"""Pictures and trained weights are those of version 0.1, to the bit: both are made by the machine that runs the test."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMES = runpy.run_path(str(HERE / "commands.py"))["NAMES"]
REPOSITORY = HERE.parents[1]
COMMIT = "6bf6554"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The comparison that `record.py --compare` makes, by the names of the commands."""
    git = ["git", "-C", str(REPOSITORY), "cat-file", "-e", COMMIT]
    try:
        there = subprocess.run(git, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        there = False
    if not there:
        pytest.skip(f"version 0.1 cannot be run: the commit {COMMIT} is not in this clone")
    folder = tmp_path_factory.mktemp("pins")
    arguments = ["--compare", "--cache", str(folder), "--json", str(folder / "report.json")]
    made = subprocess.run([sys.executable, str(HERE / "record.py"), *arguments], check=False)
    assert made.returncode in (0, 1)
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_command_makes_what_it_made_in_version_0_1(report, name):
    assert report[name]["old"]["error"] is None
    assert not report[name]["differs"]
    assert report[name]["new"]["digests"] == report[name]["old"]["digests"]
