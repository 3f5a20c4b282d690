"""What `make` would run: `make -n` prints the commands, and runs none of them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def dry(*words: str) -> str:
    """The commands of a target, whatever `make` called these tests."""
    own = {name: value for name, value in os.environ.items() if "MAKE" not in name and name != "BUDGET"}
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *words],
        cwd=ROOT, env=own, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, ...]:
    return tuple(f"{name}={tmp_path / name.lower()}" for name in ("VENV", "DATA", "RUNS", "OUT"))


def test_model_trains_the_whole_chain_from_nothing(places: tuple[str, ...], tmp_path: Path) -> None:
    text = dry("model", *places)
    data, train = text.index("unclip data artwork"), text.index("unclip train all")
    assert data < train
    assert f"--recipe artwork --data {tmp_path / 'data'} --out {tmp_path / 'runs'}" in text[train:]
    assert "--budget" not in text


def test_a_budget_is_handed_on(places: tuple[str, ...]) -> None:
    assert dry("model", "BUDGET=25m", *places).rstrip().endswith("--budget 25m")


def test_shards_that_are_there_need_neither_npm_nor_the_builder(
    places: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "artwork.json").write_text("{}")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / ".runtime").touch()
    text = dry("model", "BUDGET=25m", *places)
    assert text.splitlines() == [line for line in text.splitlines() if "unclip train all" in line]


def test_a_prompt_is_no_shell_code(places: tuple[str, ...]) -> None:
    text = dry("picture", "PROMPT=a red rocket'; exit 3; echo '", *places)
    assert "exit 3" not in text
    assert 'generate "$PROMPT"' in text


def test_tests_begin_with_style_types_and_layers(places: tuple[str, ...]) -> None:
    text = dry("test", *places)
    steps = [
        text.index(f"/{tool}") for tool in ("ruff check", "ruff format --check", "pyright ", "lint-imports")
    ]
    assert steps == sorted(steps)
    assert text.index("lint-imports") < text.index("-m pytest")
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")
