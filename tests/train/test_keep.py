"""A run that keeps its best average: the one with the least validation loss, whatever stops the run on the way."""

import json
import math
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from unclip.checkpoints.io import load_model
from unclip.config import override
from unclip.train.interrupt import Interrupted
from unclip.train.run_folder import RunFolder

BEST = ("keep=best", "validate_every=8")
LOSSES = {8: 3.0, 16: math.nan, 24: 1.0, 32: 1.0, 40: 2.0, 48: 1.5}


def scripted(run, averages):
    """Give the run these validation losses, by its samples; keep in `averages` what its average was at each of them."""

    def validate(batches) -> dict[str, float]:
        # The loop validates with the average in the network.
        averages[run.state.samples] = {k: v.clone() for k, v in run.task.network.state_dict().items()}
        return {"loss": LOSSES[run.state.samples]}

    run.task.validate = validate


def plain(weights):
    """Weights by the names of the network alone."""
    return {name.removeprefix("network."): weight for name, weight in weights.items()}


def shipped(run):
    return load_model(run.folder.model)[run.config.stage].state_dict()


@pytest.mark.parametrize(("keep", "samples"), [("best", 24), ("last", 48)])
def test_which_average_becomes_the_model(small, begin, keep, samples):
    run = begin(small("clip", *BEST, f"keep={keep}"))
    averages = {}
    scripted(run, averages)
    run.finish()
    assert sorted(averages) == sorted(LOSSES)
    torch.testing.assert_close(shipped(run), averages[samples], rtol=0, atol=0)
    assert any((averages[24][name] != averages[48][name]).any() for name in averages[24])


@pytest.mark.parametrize("stopped_at", [16, 24, 48])
def test_a_stop_does_not_change_what_is_kept(small, begin, monkeypatch, stopped_at):
    config = small("clip", *BEST)
    run = begin(config)
    averages = {}
    scripted(run, averages)
    write = RunFolder.write_metrics

    def ask_to_stop(self: RunFolder, samples: int, **values: float) -> None:
        write(self, samples, **values)
        if samples == stopped_at and "loss" in values:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_metrics", ask_to_stop)
        with pytest.raises(Interrupted):
            run.finish()
    again = begin(config)
    scripted(again, averages)
    again.finish()
    assert sorted(averages) == sorted(LOSSES)
    torch.testing.assert_close(shipped(again), averages[24], rtol=0, atol=0)


def test_the_best_is_a_checkpoint_s_own(small, begin):
    run = begin(small("clip", *BEST, "checkpoint_seconds=0"))
    averages = {}
    scripted(run, averages)
    run.go()
    newest = max(run.folder.checkpoints.iterdir())
    manifest = json.loads((newest / "manifest.json").read_text())
    assert manifest["best"] == {"loss": 1.0, "samples": 24}
    torch.testing.assert_close(plain(load_file(newest / "best.safetensors")), averages[24], rtol=0, atol=0)
    # An older checkpoint knows nothing of what came after it.
    shutil.rmtree(newest)
    older = begin(run.config)
    assert older.state.samples == 40
    assert (older.state.best.loss, older.state.best.samples) == (1.0, 24)
    torch.testing.assert_close(plain(older.state.best.average), averages[24], rtol=0, atol=0)


def test_when_it_is_looked_for_belongs_to_the_run(small):
    config = small("clip", *BEST)
    RunFolder(config)
    with pytest.raises(ValueError, match=r"differs in validate_every\)"):
        RunFolder(override(config, ["validate_every=16"]))
    with pytest.raises(ValueError, match="differs in keep"):
        RunFolder(override(config, ["keep=last"]))


def test_the_time_spent_goes_on_in_the_next_process(small):
    config = small("clip")
    first = RunFolder(config, spent=100.0)
    first.write_metrics(8, loss=1.0)
    second = RunFolder(config)
    second.rewind_metrics(0)
    second.write_metrics(8, loss=1.0)
    lines = [json.loads(line) for line in (first.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in lines] == [8]
    assert lines[0]["seconds"] >= 100.0
