"""Training within a time: the clock is the tests' own, and moves only with steps, validations and previews."""

import hashlib
import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unclip.config import override
from unclip.train import budget
from unclip.train.budget import BudgetSpent, Costs, fitted, train_all, train_within
from unclip.train.config import TrainConfig, read_config
from unclip.train.interrupt import Interrupted
from unclip.train.loop import Run, train
from unclip.train.optim import schedule
from unclip.train.run_folder import RunFolder, time_spent

STEP, VALIDATION = 2.0, 3.0


class Clock:
    """Seconds that pass only when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """A clock that each step moves by 2 s, each validation by 3 s, and the first step, as if it compiled, by 60 s more."""
    clock, steps = Clock(), []
    step, validate = Run.step, Run.validate

    def slow_step(self):
        clock.now += STEP if steps else STEP + 60.0
        steps.append(None)
        return step(self)

    def slow_validation(self):
        clock.now += VALIDATION
        validate(self)

    monkeypatch.setattr(Run, "step", slow_step)
    monkeypatch.setattr(Run, "validate", slow_validation)
    return clock


def settled(config: TrainConfig) -> TrainConfig:
    return read_config(json.loads((Path(config.out) / "config.json").read_text()))


def digest(config: TrainConfig) -> str:
    (file,) = RunFolder(config).model.glob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_budget_is_a_number_of_samples(small, clock, tmp_path):
    config = small("clip", "keep=best")
    train_within(config, 120.0, device="cpu", clock=clock)
    length = settled(config)
    # 60 s compiling, 7 steps and a validation of measuring leave 43 s, of which one validation and a reserve go.
    assert length.samples == int((0.96 * 43 - VALIDATION) / STEP) * config.batch
    assert 110 <= clock.now <= 120
    # The same samples without a budget give the same weights, bit for bit: measuring leaves no trace.
    plain = override(length, [f"out={tmp_path / 'plain'}"])
    train(plain, device="cpu")
    assert digest(length) == digest(plain)
    # Nothing is trained twice.
    before = clock.now
    train_within(config, 500.0, device="cpu", clock=clock)
    assert (clock.now, settled(config)) == (before, length)


def test_a_run_that_has_begun_keeps_its_length(small, clock, monkeypatch, tmp_path):
    config = small("clip", "keep=best")
    write = RunFolder.write_metrics

    def ask_to_stop(self: RunFolder, samples: int, **values: float) -> None:
        write(self, samples, **values)
        if samples == 24 and self.path == Path(config.out):
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_metrics", ask_to_stop)
        with pytest.raises(Interrupted, match="24 samples"):
            train_within(config, 110.0, device="cpu", clock=clock)
    length = settled(config)
    assert length.samples > 24
    assert time_spent(Path(config.out)) >= 74.0 - STEP  # what reading and measuring took
    train_within(config, 20.0, device="cpu", clock=clock)
    assert settled(config) == length
    whole = override(length, [f"out={tmp_path / 'whole'}"])
    train(whole, device="cpu")
    assert digest(length) == digest(whole)


@pytest.mark.parametrize("start", [0, 16])
def test_an_autoencoders_budget_counts_its_discriminator(
    clip_run, small, clock, monkeypatch, tmp_path, start
):
    """It begins after the same share of a shorter run, and steps with it are those that are measured and counted."""
    step, begun = Run.step, []

    def slower(self):
        metrics = step(self)
        if "discriminator" in metrics:
            clock.now += STEP
        if self.config.samples < budget._ENDLESS:
            begun.append("discriminator" in metrics)
        return metrics

    monkeypatch.setattr(Run, "step", slower)
    config = small("autoencoder", "samples=80", f"discriminator_start={start}", "optimizer.decay=0.5")
    train_within(config, 200.0, device="cpu", clock=clock)
    length = settled(config)
    assert 160 <= clock.now <= 200
    assert begun == [
        number >= length.discriminator_start for number in range(0, length.samples, config.batch)
    ]
    assert abs(sum(begun) / len(begun) - (1 - start / 80)) < 0.1
    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", step)
        plain = override(length, [f"out={tmp_path / 'plain'}"])
        train(plain, device="cpu")
    found, other = (load_file(next(RunFolder(one).model.glob("*.safetensors"))) for one in (length, plain))
    torch.testing.assert_close(found, other, rtol=0, atol=1e-5)


def test_a_machine_that_slows_down_gets_a_shorter_run(small, clock, monkeypatch, tmp_path):
    step, slow = Run.step, []

    def slower(self):
        # Three times as long as it was measured.
        if self.config.samples < budget._ENDLESS:
            slow.append(self.state.samples)
            clock.now += 2 * STEP
        return step(self)

    monkeypatch.setattr(Run, "step", slower)
    config = small("clip", "keep=best", "optimizer.decay=0.75")
    train_within(config, 200.0, device="cpu", clock=clock)
    length = settled(config)
    assert slow[-1] + config.batch == length.samples
    assert 150 <= clock.now <= 200
    # A plain run of the settled config is this run, to the rounding of its schedule.
    monkeypatch.setattr(Run, "step", step)
    train(override(length, [f"out={tmp_path / 'plain'}"]), device="cpu")
    plain = load_file(next((tmp_path / "plain" / "model").glob("*.safetensors")))
    found = load_file(next(RunFolder(length).model.glob("*.safetensors")))
    torch.testing.assert_close(plain, found, rtol=0, atol=1e-5)


def test_a_run_that_is_late_still_lets_its_rate_fall(small):
    config = small("clip", "samples=1000", "batch=10", "optimizer.decay=0.3", "optimizer.warmup=0.1")
    late = budget.adjusted_length(config, 700, 0)
    assert (late.samples, late.optimizer.warmup) == (770, pytest.approx(100 / 770))
    assert schedule(late.optimizer, 700 / 770) == pytest.approx(1.0)
    assert schedule(late.optimizer, 735 / 770) == pytest.approx(0.5)
    assert budget.adjusted_length(config, 700, 310) is config
    assert budget.adjusted_length(config, 700, 500).samples == 1200


def test_a_stop_while_measuring_leaves_nothing(small, clock, monkeypatch):
    config = small("clip")
    monkeypatch.setattr(Run, "step", lambda self: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match="nothing was trained"):
        train_within(config, 100.0, device="cpu", clock=clock)
    assert not Path(config.out).exists()


def test_validations_and_previews_take_their_shares_at_most(small):
    config = small("clip")
    long = fitted(config, 1000.0, Costs(0.1, 1.0, 4.0))
    assert -(-long.samples // long.validate_every) == budget.MOST_VALIDATIONS
    assert -(-long.samples // long.preview_every) == budget.MOST_PREVIEWS
    assert long.samples / config.batch * 0.1 == pytest.approx(0.96 * 1000 - 25 * 1.0 - 5 * 4.0, abs=0.2)
    assert all(value % config.batch == 0 for value in (long.samples, long.validate_every, long.preview_every))
    short = fitted(config, 20.0, Costs(0.1, 1.0, 4.0))
    assert short.samples == short.validate_every == short.preview_every
    with pytest.raises(BudgetSpent, match=r"5.0 s left for the stage clip.*take 5.1 s.*larger budget"):
        fitted(config, 5.0, Costs(0.1, 1.0, 4.0))


def test_stages_share_what_is_left(small, monkeypatch, tmp_path):
    configs = {name: small("clip", f"out={tmp_path / name}") for name in ("a", "b", "c")}
    stages = {name: (config, share) for (name, config), share in zip(configs.items(), (0.5, 0.3, 0.2))}
    took = {"a": 70.0, "b": 10.0, "c": 20.0}
    allotted = {}

    def pretend(config, seconds, *, device, clock):
        name = Path(config.out).name
        allotted[name] = seconds
        RunFolder(config, spent=took[name]).write_metrics(8, loss=1.0)
        return Path(config.out) / "model"

    monkeypatch.setattr(budget, "train_within", pretend)
    assert train_all(stages, 100.0) == {name: tmp_path / name / "model" for name in "abc"}
    # The first took 70 s instead of its 50 s; the second 10 s instead of its 18 s, and the third is left with 20 s.
    assert allotted == pytest.approx({"a": 50.0, "b": 18.0, "c": 20.0}, abs=0.5)


def test_a_spent_budget_says_so(small, tmp_path):
    first, second = (small("clip", f"out={tmp_path / name}") for name in ("first", "second"))
    RunFolder(first, spent=100.0).write_metrics(8, loss=1.0)
    (tmp_path / "first" / "model").mkdir()
    (tmp_path / "first" / "model" / "model.json").write_text("{}")
    with pytest.raises(
        BudgetSpent, match=r"100 s of 90 s are spent, and second has not begun.*larger budget"
    ):
        train_all({"first": (first, 0.5), "second": (second, 0.5)}, 90.0, device="cpu")
