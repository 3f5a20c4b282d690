"""Trainings that take a second: the tiny recipe with smaller nets and fewer samples."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unclip import recipes
from unclip.config import override
from unclip.train.config import TrainConfig
from unclip.train.loop import Run, train
from unclip.train.run_folder import RunFolder
from unclip.train.task import build_task

CPU = torch.device("cpu")

NETS = {
    "clip": (
        "model.embedding=8",
        "model.vision.width=16",
        "model.vision.layers=1",
        "model.text.width=16",
        "model.text.layers=1",
        "vocabulary=540",
    ),
    "prior": ("model.width=16", "model.layers=1"),
    "decoder": (
        "model.net.channels=8",
        "model.net.vector_width=32",
        "model.net.head_channels=8",
        "model.net.context_width=8",
        "model.net.groups=4",
        "model.caption.width=8",
    ),
    "autoencoder": (
        "model.channels=8",
        "model.groups=4",
        "discriminator.channels=8",
        "discriminator_start=16",
    ),
    "latent_decoder": (
        "model.net.channels=8",
        "model.net.vector_width=32",
        "model.net.head_channels=8",
        "model.net.context_width=8",
        "model.net.groups=4",
        "model.caption.width=8",
    ),
    "kandinsky_decoder": (
        "model.embedding=8",
        "model.net.channels=8",
        "model.net.vector_width=32",
        "model.net.head_channels=8",
        "model.net.context_width=8",
        "model.net.groups=4",
    ),
    "text_decoder": ("model.net.channels=8", "model.net.groups=4", "model.net.context_width=16"),
    "upsampler": ("model.net.channels=8", "model.net.groups=4"),
    "upsampler_1024": ("model.net.channels=8", "model.net.groups=4"),
}


@pytest.fixture(scope="session")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where decoded pictures are kept between tests."""
    return tmp_path_factory.mktemp("decoded")


@pytest.fixture(scope="session")
def clip_run(tmp_path_factory: pytest.TempPathFactory, decoded: Path) -> Path:
    """A finished run of CLIP, of two steps: it knows nothing, but has all that the other stages ask of it."""
    out = tmp_path_factory.mktemp("clip") / "clip"
    train(override(recipes.get("tiny", "clip"), changes("clip", out, decoded, "samples=16")), device="cpu")
    return out


@pytest.fixture(scope="session")
def autoencoder_run(tmp_path_factory: pytest.TempPathFactory, decoded: Path, clip_run: Path) -> Path:
    """A finished run of the autoencoder, of two steps."""
    out = tmp_path_factory.mktemp("autoencoder") / "autoencoder"
    settings = changes("autoencoder", out, decoded, f"clip={clip_run}", "samples=16")
    train(override(recipes.get("tiny", "autoencoder"), settings), device="cpu")
    return out


@pytest.fixture
def small(tmp_path: Path, decoded: Path, request: pytest.FixtureRequest) -> Callable[..., TrainConfig]:
    """`small("clip", "seed=1")`: a config of 48 samples in batches of 8, its run in `tmp_path/clip`."""

    def make(stage: str, *further: str) -> TrainConfig:
        latent = ("latent_decoder", "text_decoder", "kandinsky_decoder")
        if stage in ("prior", "decoder", "autoencoder", *latent):
            further = (f"clip={request.getfixturevalue('clip_run')}", *further)
        if stage in latent:
            further = (f"autoencoder={request.getfixturevalue('autoencoder_run')}", *further)
        return override(recipes.get("tiny", stage), changes(stage, tmp_path / stage, decoded, *further))

    return make


def changes(stage: str, out: Path, decoded: Path, *further: str) -> list[str]:
    """What makes the tiny recipe small."""
    return [*NETS[stage], "samples=48", "batch=8", f"out={out}", f"data.cache={decoded}", *further]


@pytest.fixture
def begin() -> Callable[[TrainConfig], Run]:
    """`begin(config)`: a run at its start, or where its newest checkpoint is."""
    return lambda config: Run(config, build_task(config, CPU), CPU, RunFolder(config))
