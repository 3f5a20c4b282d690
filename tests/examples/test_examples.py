"""Every script of examples/ runs at its smallest settings, and the notebooks are valid and run."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))

# Script -> the arguments of its smallest run, and the files that it has to write.
SMALLEST: dict[str, tuple[list[str], list[str]]] = {
    "draw": (["-n", "1", "--steps", "2", "--out", "drawn"], ["drawn/*.png"]),
    "variations_sheet": (
        ["--etas", "0.5", "-n", "1", "--steps", "2", "--out", "a/sheet.png"],
        ["a/sheet.png"],
    ),
    "text_diff": (["--frames", "2", "--steps", "2", "--out", "a/diff.webp"], ["a/diff.webp"]),
    "guidance_sweep": (
        ["--scales", "1,4", "-n", "1", "--steps", "2", "--out", "a/sweep.png"],
        ["a/sweep.png"],
    ),
    "progress": (["--steps", "3", "--out", "a"], ["a/finished.png", "a/decoder-*.png"]),
    "clip_search": (["-k", "2"], []),
    "embeddings_table": (["--out", "a/table.parquet"], ["a/table.parquet"]),
    "own_sampler": (["--steps", "2", "--out", "a/samplers.png"], ["a/samplers.png"]),
    "toy_2d": (["--iterations", "3", "--steps", "3", "--out", "a/toy.png"], ["a/toy.png"]),
    "audio": (["--iterations", "1", "--length", "512", "--out", "a"], ["a/3.wav"]),
    "own_data": (["--pictures", "80", "--samples", "64", "--out", "a"], ["a/drawn/*.png"]),
    "fine_tune": (["--pictures", "4", "--samples", "4", "--batch", "4", "--out", "a"], ["a/blueprint/*.png"]),
}
HELPERS = {"diffusion_loop"}


def scripts() -> list[str]:
    return sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in HELPERS)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Imports a script as `python examples/NAME.py` would, with a fresh folder to write to."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module


def test_every_script_is_tested_and_documented() -> None:
    assert scripts() == sorted(SMALLEST)
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert not [name for name in (*scripts(), *HELPERS) if f"examples/{name}.py" not in page]
    assert not [path.name for path in NOTEBOOKS if path.name not in page]


@pytest.mark.parametrize("name", SMALLEST)
def test_runs_at_its_smallest(name: str, load, tmp_path: Path) -> None:
    arguments, files = SMALLEST[name]
    load(name).main(arguments)
    assert not [pattern for pattern in files if not list(tmp_path.glob(pattern))]


@pytest.mark.parametrize("name", SMALLEST)
def test_help_and_length(name: str, load, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        load(name).main(["--help"])
    assert "usage:" in capsys.readouterr().out
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_the_search_finds_the_apple(load, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = ROOT / "docs" / "images" / "inputs"
    load("clip_search").main([str(inputs), "--like", str(inputs / "apple.png"), "-k", "1"])
    assert capsys.readouterr().out.rstrip().endswith("apple.png")


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS])
def test_a_notebook_is_valid_and_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 4
    assert path.stat().st_size < 100_000
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    environment = {**os.environ, "UNCLIP_QUICK": "1"}
    # Notebooks show the last value of a cell; here it is only computed.
    (tmp_path / "cells.py").write_text("\n".join(code), encoding="utf-8")
    program = [sys.executable, "-W", "error", "cells.py"]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
