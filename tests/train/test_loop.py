"""The loop: its guard, its gradients, its precision, its bar, its folder."""

import io
import json
import math
import re
import sys
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from unclip.checkpoints.io import load_model
from unclip.config import override
from unclip.train.config import DataConfig
from unclip.train.loop import NonFiniteLoss, train
from unclip.train.run_folder import RunFolder
from unclip.train.task import compiled


def snapshot(run):
    state = run.state
    moments = [optimizer.state_dict()["state"] for optimizer in state.optimizers]
    parts = {"model": state.model.state_dict(), "ema": state.ema.state_dict(), "moments": moments}
    return {"samples": state.samples, **tree_map(lambda leaf: leaf.clone(), parts)}


def test_a_poisoned_picture_is_named_and_nothing_is_learned_from_it(small, begin, monkeypatch):
    config = small("upsampler")
    run, healthy = begin(config), begin(config)
    run.step()
    before = snapshot(run)
    source = run.batches.train
    key, squares = source.key(11), source.squares

    def poisoned(indices, corner, side):
        found = squares(indices, corner, side)
        found[[source.decoded.samples[index].key == key for index in indices]] = math.nan
        return found

    with monkeypatch.context() as patch:
        patch.setattr(source, "squares", poisoned)
        run.prefetcher.close()
        with pytest.raises(NonFiniteLoss, match=rf"at {key} \(sample 11\): look at"):
            run.step()
    torch.testing.assert_close(snapshot(run), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in run.state.model.parameters())
    run.prefetcher.close()
    run.step()
    healthy.step()
    healthy.step()
    torch.testing.assert_close(snapshot(run), snapshot(healthy), rtol=0, atol=0)


def test_a_batch_that_fails_as_a_whole_is_named_by_its_range(small, begin):
    run = begin(small("upsampler", "batch=4"))
    # Finite losses whose gradients overflow only when they are added.
    forward = run.task.forward
    run.task.forward = lambda batch, noise: forward(batch, noise)._replace(
        loss=forward(batch, noise).loss * (math.inf if len(batch.windows) > 1 else 1.0)
    )
    with pytest.raises(
        NonFiniteLoss, match="at sample 0: no sample fails alone, so the weights have diverged"
    ):
        run.step()


def test_weights_that_diverged_blame_no_picture(small, begin):
    run = begin(small("upsampler", "batch=4"))
    with torch.no_grad():
        next(run.state.model.parameters()).fill_(math.nan)
    message = r"at sample 0: 4 of 4 samples fail alone, so the weights have diverged: lower .*; there is no checkpoint yet"
    with pytest.raises(NonFiniteLoss, match=message):
        run.step()
    with torch.no_grad():
        next(run.state.model.parameters()).fill_(0.0)
    kept = run.state.save(run.folder.checkpoints, keep=2)
    with torch.no_grad():
        next(run.state.model.parameters()).fill_(math.nan)
    with pytest.raises(NonFiniteLoss, match=rf"the run goes on from {kept}"):
        run.step()


@pytest.mark.parametrize("stage", ["prior", "decoder", "upsampler", "upsampler_1024"])
def test_accumulated_gradients_are_those_of_the_batch(small, begin, stage):
    # Adam divides by the gradient's size; a large epsilon keeps rounding from being blown up by that. Muon makes all
    # singular values of an update alike, those that are rounding alone too.
    config = small(stage, "batch=12", "optimizer.epsilon=0.01", "optimizer.muon_learning_rate=null")
    whole, parts = begin(config), begin(override(config, ["micro_batch=5", f"out={config.out}-parts"]))
    for _ in range(2):
        expected, found = whole.step(), parts.step()
        assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(snapshot(parts)["model"], snapshot(whole)["model"], rtol=0, atol=3e-6)


def test_gradients_are_clipped_by_their_common_norm(small, begin):
    config = small("upsampler", "optimizer.clip_norm=1e9")
    loose = begin(config)
    tight = begin(override(config, ["optimizer.clip_norm=0.01", f"out={config.out}-tight"]))
    before, after = (run._accumulate(np.arange(8))["gradient_norm"] for run in (loose, tight))
    assert before == after > 0.01
    free, clipped = ([one.grad for one in run.state.model.parameters()] for run in (loose, tight))
    assert nn.utils.get_total_norm(clipped).item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(clipped, [grad * (0.01 / before) for grad in free], rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize(("precision", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
@pytest.mark.parametrize("stage", ["clip", "prior", "decoder", "upsampler"])
def test_only_activations_are_rounded(small, begin, stage, precision, expected):
    """Weights, their gradients' moments and their average are float32, whatever the products are computed in."""
    run = begin(small(stage, f"precision={precision}", "optimizer.muon_learning_rate=0.01"))
    seen = set()
    for part in run.state.model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.register_forward_hook(lambda module, given, out: seen.add(out.dtype))
    assert math.isfinite(run.step()["loss"])
    assert expected in seen
    assert precision == "bf16" or seen == {torch.float32}
    kept = [leaf.dtype for leaf in tree_leaves(snapshot(run)) if torch.is_tensor(leaf)]
    assert set(kept) <= {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("device", "wanted", "expected"),
    [("cpu", "null", False), ("cuda", "null", True), ("cpu", "true", True), ("cuda", "false", False)],
)
def test_networks_are_compiled_on_cuda_or_where_asked(small, monkeypatch, device, wanted, expected):
    # Compiling itself takes a compiler and a minute.
    monkeypatch.setattr(torch, "compile", partial)
    network = nn.Linear(2, 2)
    found = compiled(small("upsampler", f"compile={wanted}"), torch.device(device), network)
    assert (found.func if isinstance(found, partial) else None) is (network if expected else None)
    assert expected or found is network


class Terminal(io.StringIO):
    """A stream that a person watches."""

    def isatty(self) -> bool:
        return True


def test_the_bar_shows_loss_speed_and_time_left(small, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    train(small("upsampler", "samples=24"), device="cpu")
    first, last = terminal.getvalue().split("\r")[1], terminal.getvalue().split("\r")[-1]
    assert re.match(r"upsampler: +0%.* 0/24 \[00:00<\?, \? pictures/s\]", first)
    assert re.match(
        r"upsampler: 100%.* 24/24 \[\d\d:\d\d<00:00, +[\d.]+( pictures/s|s/ pictures), loss=\d+\.\d{4}\]",
        last,
    )


def loss_of(run, numbers):
    return run.task(run._batch(numbers), run._noise(numbers)).loss


def test_samples_do_not_depend_on_the_batch(small, begin):
    config = small("upsampler")
    run = begin(config)
    together = [loss_of(run, np.arange(8, 12)), loss_of(run, np.arange(12, 16))]
    alone = [loss_of(run, np.array([number])) for number in range(8, 16)]
    torch.testing.assert_close(torch.stack(together).mean(), torch.stack(alone).mean())
    assert len({loss.item() for loss in alone}) == 8


@pytest.mark.parametrize("stage", ["clip", "prior", "decoder", "upsampler"])
def test_validation_is_fixed(small, begin, stage):
    run = begin(small(stage))
    with torch.inference_mode():
        first = run.task.validate(run.batches)
        assert run.task.validate(run.batches) == first
    run.step()
    with torch.inference_mode():
        assert run.task.validate(run.batches) != first
    assert all(math.isfinite(value) for value in first.values())
    if stage != "clip":
        levels = [first[f"loss_{level}"] for level in range(8)]
        assert first["loss"] == pytest.approx(np.mean(levels))
        assert len(set(levels)) == 8


def test_the_folder_of_a_run(small):
    config = small("upsampler", "samples=40", "batch=16", "validate_every=16", "preview_every=32")
    folder = train(config, device="cpu")
    run = RunFolder(config)
    assert folder == run.model
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in lines if "loss" in line] == [16, 32, 40]
    assert [line["samples"] for line in lines if "validation_loss" in line] == [16, 32, 40]
    assert all(line["rate"] > 0 and line["gradient_norm"] > 0 for line in lines if "loss" in line)
    assert sorted(path.name for path in (run.path / "previews").iterdir()) == [
        "000000032.png",
        "000000040.png",
    ]
    # The model is the average, not the last weights.
    checkpoint = max(run.checkpoints.iterdir())
    state = {f"network.{name}": value for name, value in load_model(folder)["upsampler"].state_dict().items()}
    torch.testing.assert_close(state, load_file(checkpoint / "ema.safetensors"), rtol=0, atol=0)
    assert any(
        (state[name] != value).any() for name, value in load_file(checkpoint / "model.safetensors").items()
    )
    # A finished run is left alone.
    before = (folder / "model.json").stat().st_mtime_ns
    assert train(config, device="cpu") == folder
    assert (folder / "model.json").stat().st_mtime_ns == before


def test_a_folder_belongs_to_one_config(small):
    config = small("clip")
    RunFolder(config)
    RunFolder(override(config, ["validate_every=5", "checkpoint_seconds=1", "data.cache=null"]))
    for change in ("seed=1", "data.size=32", "optimizer.decay=0.5"):
        with pytest.raises(ValueError, match=rf"differs in {change.partition('=')[0].partition('.')[0]}\)"):
            RunFolder(override(config, [change]))
    with pytest.raises(ValueError, match="set out"):
        RunFolder(override(config, ["out="]))


def test_metrics_are_rewound(small):
    folder = RunFolder(small("clip"))
    for samples in (8, 16, 24):
        folder.write_metrics(samples, loss=1 / 3)
    file = folder.path / "metrics.jsonl"
    file.write_text(file.read_text() + '{"samples": 16, "lo')
    folder.rewind_metrics(16)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["samples"], line["loss"]) for line in lines] == [(8, 0.333333), (16, 0.333333)]


@pytest.mark.parametrize("name", ["samples", "batch", "micro_batch", "validate_every", "checkpoints_kept"])
def test_numbers_that_make_no_run(small, name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        override(small("clip"), [f"{name}=0"])
    with pytest.raises(ValueError, match="held_out is 1"):
        DataConfig(held_out=1)


def test_a_stage_needs_its_clip(small, tmp_path):
    for clip, told in (("", "learns from a CLIP"), ("elsewhere", "neither a finished CLIP run")):
        config = small("prior", f"out={tmp_path / told}")
        with pytest.raises(ValueError, match=told):
            train(override(config, [f"clip={clip}"]), device="cpu")
