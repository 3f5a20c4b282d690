"""Checkpoints: whole or not there, the newest good one is used, two are kept."""

import json
import shutil

import pytest
import torch
from torch import nn

from unclip.train.ema import Ema
from unclip.train.optim import OptimizerConfig, build_optimizers
from unclip.train.state import DamagedCheckpoint, TrainingState


class Net(nn.Module):
    """A channels-last convolution for AdamW, a hidden matrix for Muon, a number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.blocks = nn.ModuleList([nn.Linear(4, 6, bias=False)])
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def fresh_state() -> TrainingState:
    model = Net()
    config = OptimizerConfig(learning_rate=0.1, muon_learning_rate=0.1)
    optimizers = build_optimizers(model.named_parameters(), config, fused=True)
    assert len(optimizers) == 2
    return TrainingState(model, Ema(model, 0.9), optimizers)


def advance(state: TrainingState, steps: int) -> None:
    """Steps along gradients that depend on nothing but the step's number."""
    for _ in range(steps):
        torch.manual_seed(state.steps)
        for parameter in state.model.parameters():
            parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
        for optimizer in state.optimizers:
            optimizer.step()
        state.model.count += 1
        state.steps += 1
        state.samples += 10
        state.ema.update(state.model, state.steps)


def contents(state: TrainingState) -> dict[str, torch.Tensor]:
    moments = {
        f"{index} {parameter} {name}": value
        for index, optimizer in enumerate(state.optimizers)
        for parameter, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    average = {f"average {name}": value for name, value in state.ema.state_dict().items()}
    return {**moments, **average, **state.model.state_dict()}


def assert_equal(one: TrainingState, other: TrainingState) -> None:
    assert (one.samples, one.steps) == (other.samples, other.steps)
    torch.testing.assert_close(contents(one), contents(other), rtol=0, atol=0)


def test_a_restored_state_goes_on_as_the_saved_one(tmp_path):
    state, restored = fresh_state(), fresh_state()
    advance(state, 2)
    state.save(tmp_path, keep=2)
    assert restored.load_newest(tmp_path) == tmp_path / "samples-000000000020"
    assert_equal(restored, state)
    advance(state, 3)
    advance(restored, 3)
    assert_equal(restored, state)


def test_nothing_to_restore(tmp_path):
    assert fresh_state().load_newest(tmp_path / "nowhere") is None


def test_the_newest_two_are_kept_and_leftovers_removed(tmp_path):
    state = fresh_state()
    (tmp_path / ".writing-1").mkdir()
    for _ in range(4):
        advance(state, 1)
        state.save(tmp_path, keep=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["samples-000000000030", "samples-000000000040"]


def test_a_good_checkpoint_is_not_written_again(tmp_path):
    state = fresh_state()
    advance(state, 1)
    before = (state.save(tmp_path, keep=2) / "model.safetensors").stat()
    after = (state.save(tmp_path, keep=2) / "model.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def flip_a_bit(checkpoint):
    data = bytearray((checkpoint / "ema.safetensors").read_bytes())
    data[-5] ^= 1
    (checkpoint / "ema.safetensors").write_bytes(data)


def cut(checkpoint):
    data = (checkpoint / "optimizers.safetensors").read_bytes()
    (checkpoint / "optimizers.safetensors").write_bytes(data[:-1])


def lose_a_file(checkpoint):
    (checkpoint / "model.safetensors").unlink()


def lose_the_manifest(checkpoint):
    (checkpoint / "manifest.json").unlink()


def cut_the_manifest(checkpoint):
    text = (checkpoint / "manifest.json").read_text()
    (checkpoint / "manifest.json").write_text(text[: len(text) // 2])


def change_a_number(checkpoint):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["samples"] += 10
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def replace_the_manifest(checkpoint):
    (checkpoint / "manifest.json").write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        cut,
        lose_a_file,
        lose_the_manifest,
        cut_the_manifest,
        change_a_number,
        replace_the_manifest,
    ],
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    state, previous, restored = fresh_state(), fresh_state(), fresh_state()
    advance(previous, 2)
    for _ in range(3):
        advance(state, 1)
        state.save(tmp_path, keep=2)
    damage(tmp_path / "samples-000000000030")
    with pytest.warns(DamagedCheckpoint, match="samples-000000000030"):
        assert restored.load_newest(tmp_path) == tmp_path / "samples-000000000020"
    assert_equal(restored, previous)
    # The run comes to the same place once more, and puts a good checkpoint in the place of the damaged one.
    advance(restored, 1)
    restored.save(tmp_path, keep=2)
    again = fresh_state()
    assert again.load_newest(tmp_path) == tmp_path / "samples-000000000030"
    assert_equal(again, state)


def test_damaged_checkpoints_do_not_displace_good_ones(tmp_path):
    state = fresh_state()
    advance(state, 1)
    state.save(tmp_path, keep=2)
    for name in ("samples-000000000800", "samples-000000000900"):
        shutil.copytree(tmp_path / "samples-000000000010", tmp_path / name)
        flip_a_bit(tmp_path / name)
    restored = fresh_state()
    with pytest.warns(DamagedCheckpoint):
        restored.load_newest(tmp_path)
    advance(restored, 1)
    restored.save(tmp_path, keep=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["samples-000000000010", "samples-000000000020"]
