"""`unclip train --launch torchrun` and `ray` start real processes, which train one model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unclip.checkpoints.io import load_model

ROOT = Path(__file__).parent.parent.parent


def command(out: Path, *launch: str) -> list[str]:
    settings = ["model.net.channels=8", "model.net.groups=4", "batch=8", "samples=16", "precision=fp32"]
    words = ["train", "upsampler", "--recipe", "tiny", "--out", str(out), "--device", "cpu", *launch]
    return [*words, *(word for setting in settings for word in ("--set", setting))]


def trained(words: list[str], out: Path) -> str:
    """Standard output of a command that leaves a run of two processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_TRAIN_V2_ENABLED": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert len(json.loads((checkpoint / "manifest.json").read_text())["files"]) == 2
    assert list(load_model(out / "model")) == ["upsampler"]
    return done.stdout


def test_torchrun(tmp_path):
    out = tmp_path / "run"
    words = [
        sys.executable,
        "-m",
        "unclip.cli.main",
        *command(out, "--launch", "torchrun", "--processes", "2"),
    ]
    # One process says what all of them made.
    assert trained(words, out).splitlines() == [str(out / "model")]


def launched(out: Path, *words: str) -> str:
    """Standard output of a training command on two processes of torchrun."""
    given = [*words, "--recipe", "tiny", "--out", str(out), "--device", "cpu", "--launch", "torchrun"]
    command = [sys.executable, "-m", "unclip.cli.main", "train", *given, "--processes", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=560)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_a_budget_of_time(tmp_path):
    out = tmp_path / "run"
    settings = ["model.net.channels=8", "model.net.groups=4", "model.net.multiples=[1]", "batch=8"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert launched(out, "upsampler", "--budget", "40s", *words).splitlines() == [str(out / "model")]
    config = json.loads((out / "config.json").read_text())
    assert config["samples"] % 8 == 0
    assert config["keep"] == "best"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line["samples"] for line in lines if "loss" in line]
    assert steps == list(range(8, config["samples"] + 1, 8))
    assert any("validation_loss" in line for line in lines)
    # What has begun keeps its length.
    assert launched(out, "upsampler", "--budget", "1h", *words).splitlines() == [str(out / "model")]


@pytest.mark.slow
@pytest.mark.parametrize("budget", [(), ("--budget", "160s")])
def test_a_chain_of_stages(tmp_path, budget):
    out = tmp_path / "run"
    lengths = {"clip": 256, "prior": 128, "decoder": 64, "upsampler": 64}
    words = [word for name, samples in lengths.items() for word in ("--set", f"{name}.samples={samples}")]
    assert launched(out, "all", "--no-evaluate", *words, *budget).splitlines() == [str(out / "model")]
    assert set(load_model(out / "model")) == {"clip", "prior", "decoder", "upsampler"}
    for name, samples in lengths.items():
        config = json.loads((out / name / "config.json").read_text())
        assert budget or config["samples"] == samples
        (newest,) = sorted((out / name / "checkpoints").iterdir())[-1:]
        manifest = json.loads((newest / "manifest.json").read_text())
        assert (manifest["samples"], len(manifest["files"])) == (config["samples"], 2)


@pytest.mark.slow
def test_ray(tmp_path):
    pytest.importorskip("ray.train")
    out = tmp_path / "run"
    words = [sys.executable, "-m", "unclip.cli.main", *command(out, "--launch", "ray", "--processes", "2")]
    trained(words, out)


@pytest.mark.slow
def test_the_example_for_ray(tmp_path):
    pytest.importorskip("ray.train")
    out = tmp_path / "run"
    script = ROOT / "examples" / "cluster" / "ray_train.py"
    words = [sys.executable, str(script), "--workers", "2", "--no-gpu", "--", *command(out)[1:]]
    trained(words, out)
