"""The same recipes on a GPU: compiled, with fused optimisers, resumable."""

import json

import pytest
import torch

from unclip.checkpoints.io import load_model
from unclip.config import override
from unclip.train.loop import Run, train
from unclip.train.run_folder import RunFolder
from unclip.train.task import build_task


@pytest.mark.gpu
@pytest.mark.parametrize("stage", ["clip", "prior", "decoder", "upsampler"])
def test_stages_train_on_cuda(small, tmp_path, stage):
    config = small(stage, "precision=bf16", "checkpoint_seconds=0")
    folder = train(config, device="cuda")
    lines = [json.loads(line) for line in (RunFolder(config).path / "metrics.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in lines if "loss" in line] == [8, 16, 24, 32, 40, 48]
    assert load_model(folder, device="cpu").keys() == {stage}


@pytest.mark.gpu
def test_pictures_stay_in_device_memory_and_runs_go_on(small, tmp_path):
    device = torch.device("cuda")
    config = small("decoder", "compile=false", "precision=fp32")

    def begin(out: str) -> Run:
        changed = override(config, [f"out={tmp_path / out}"])
        return Run(changed, build_task(changed, device), device, RunFolder(changed))

    whole, first = begin("whole"), begin("killed")
    assert whole.batches.train.pictures_between(0, 4).device.type == "cuda"
    losses = [whole.step()["loss"] for _ in range(4)]
    again = [first.step()["loss"] for _ in range(2)]
    first._save()
    second = begin("killed")
    assert second.state.samples == 16
    again += [second.step()["loss"] for _ in range(2)]
    assert again == pytest.approx(losses, rel=1e-4)
