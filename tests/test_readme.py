"""The README tells the truth: its tree is the tree, its commands parse, its Python runs."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from unclip.checkpoints.hub import bundled
from unclip.cli.main import build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every command of the README that begins with `unclip`, in text or in an indented block."""
    text = README.partition("## The tree")[0]
    quoted = re.findall(r"`(unclip [^`]+)`", text.replace("\n", " "))
    blocks = re.findall(r"^    (unclip .+)$", text, flags=re.MULTILINE)
    return [*quoted, *blocks]


def test_the_tree_is_up_to_date() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "tree.py"))
    assert script["updated"](README) == README, "run `python docs/tree.py`"


def test_the_first_table_is_what_was_measured() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    followed = page.partition("## Captions followed")[2].partition("\n| one word")[0]
    measured = re.findall(r"^\| [^|]+ \| \d+ \| .* \| ([\d.]+) \| [\d.]+ \|$", followed, flags=re.MULTILINE)
    shown = README.partition("| captions followed")[2].partition("<sub>")[0]
    assert re.findall(r"\| ([\d.]+)(?= \|)", shown) == measured, "docs/evaluation.md has other figures"
    assert len(measured) == 6


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)[1:]
    if "--help" in words:
        with pytest.raises(SystemExit, match="0"):
            build_parser().parse_args(words)
    else:
        build_parser().parse_args(words)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 8


def test_the_python_runs(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(code) == 1
    assert "artwork" in bundled()
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code[0]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert len(list(tmp_path.glob("apple-*.png"))) == 4
    assert re.search(r"z_i·z_t = 0\.\d\d", process.stdout)


def test_pictures_and_pages_exist() -> None:
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
