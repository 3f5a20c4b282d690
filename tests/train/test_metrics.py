"""Loggers of a run: the folder always, others by name or from Python; a resumed run begins them where it stands."""

import json
import resource
import signal
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from unclip.config import ConfigError, override
from unclip.disk import DiskFull
from unclip.train.loop import train
from unclip.train.metrics import FolderLogger, MetricsLogger, TensorBoardLogger, build_loggers
from unclip.train.run_folder import RunFolder


class Recorder:
    """Keeps what it is given."""

    def __init__(self, folder=None):
        self.folder, self.calls = folder, []

    def begin(self, samples):
        self.calls.append(("begin", samples))

    def log(self, samples, values):
        self.calls.append(("log", samples, dict(values)))

    def log_picture(self, samples, picture):
        self.calls.append(("picture", samples, picture.size))

    def close(self):
        self.calls.append(("close",))


def test_a_logger_from_python_gets_what_the_folder_gets(small):
    config = small("upsampler", "samples=16", "preview_every=16")
    mine = Recorder()
    assert isinstance(mine, MetricsLogger)
    assert isinstance(FolderLogger("."), MetricsLogger)
    train(config, device="cpu", loggers=[mine])
    lines = [json.loads(line) for line in (RunFolder(config).path / "metrics.jsonl").read_text().splitlines()]
    logged = [{"samples": call[1], **call[2]} for call in mine.calls if call[0] == "log"]
    assert logged == lines
    assert mine.calls[0] == ("begin", 0)
    assert mine.calls[-1] == ("close",)
    assert [call[1] for call in mine.calls if call[0] == "picture"] == [16]


def test_a_resumed_run_says_where(small, begin):
    config = small("upsampler")
    run = begin(config)
    run.go(until=16)
    mine = Recorder()
    RunFolder(config, loggers=[mine]).rewind_metrics(16)
    assert mine.calls == [("begin", 16)]


def test_loggers_by_name(small, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mine", module := ModuleType("mine"))
    module.Recorder = Recorder
    (found,) = build_loggers(["mine:Recorder"], tmp_path)
    assert found.folder == tmp_path
    for name, told in (
        ("wandb", "tensorboard, nor MODULE:CLASS"),
        ("mine:Other", "cannot be imported"),
        ("no.such:X", "cannot"),
    ):
        with pytest.raises(ConfigError, match=told):
            build_loggers([name], tmp_path)
    # They are no part of what decides the weights.
    config = small("clip")
    RunFolder(config)
    RunFolder(override(config, ['loggers=["mine:Recorder"]']))


def test_tensorboard(monkeypatch, tmp_path):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step=None):
            written.append(("open", folder, purge_step))

        def add_scalar(self, name, value, global_step):
            written.append((name, value, global_step))

        def add_image(self, name, pixels, global_step, dataformats):
            written.append((name, pixels.shape, global_step, dataformats))

        def close(self):
            written.append("close")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module := ModuleType("tensorboard"))
    module.SummaryWriter = SummaryWriter
    logger = TensorBoardLogger(tmp_path)
    logger.begin(8)
    logger.log(16, {"loss": 0.5})
    logger.log_picture(16, Image.fromarray(np.zeros((4, 6, 3), dtype=np.uint8)))
    logger.close()
    logger.log(24, {"loss": 0.25})
    folder = str(tmp_path / "tensorboard")
    assert written == [
        ("open", folder, 9),
        ("loss", 0.5, 16),
        ("preview", (4, 6, 3), 16, "HWC"),
        "close",
        ("open", folder, None),
        ("loss", 0.25, 24),
    ]


def test_tensorboard_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'unclip\[tensorboard\]'"):
        TensorBoardLogger(tmp_path).begin(0)


def test_a_full_disk_is_named_with_the_file_and_the_remedy(tmp_path):
    logger = FolderLogger(tmp_path)
    logger.log(8, {"loss": 1.0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32, before[1]))
    try:
        with pytest.raises(
            DiskFull,
            match=r"no room for the run's measurements.*goes on from the last checkpoint.*metrics\.jsonl",
        ):
            logger.log(16, {"loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    logger.begin(8)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["samples"] == 8
