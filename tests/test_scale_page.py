"""The plan for full scale is what its script computes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_page_is_the_output_of_its_script():
    script = ROOT / "benchmarks" / "scale_page.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert done.stdout.rstrip("\n") == page.rstrip("\n")
