"""A run that is killed (`kill -9`) and started again ends with bitwise the same weights, average and moments."""

import hashlib
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from unclip.config import override, to_dict
from unclip.train.interrupt import Interrupted, stop_requests
from unclip.train.loop import train
from unclip.train.run_folder import RunFolder

# Which fsync each process does not survive: the config's; those of the tokenizer and the data's record; those of the first checkpoint's files, manifest, folder and
# rename; those of the second; then one between the next two.
MOMENTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 15)


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        pytest.param("clip", ("optimizer.muon_learning_rate=0.01", "data.shift=1"), id="clip with Muon"),
        pytest.param("decoder", ("model.net.dropout=0.1", "micro_batch=4"), id="decoder with dropout"),
    ],
)
def test_kills_do_not_show_in_the_weights(small, tmp_path, stage, changes):
    config = small(stage, *changes, "checkpoint_seconds=0")
    whole, killed = (override(config, [f"out={tmp_path / name}"]) for name in ("whole", "killed"))
    assert _train_elsewhere(tmp_path, whole, 0) == [0]
    statuses = _train_elsewhere(tmp_path, killed, *MOMENTS, 0)
    assert statuses == [-signal.SIGKILL] * len(MOMENTS) + [0]
    assert _digests(whole) == _digests(killed)
    assert _measurements(whole) == _measurements(killed)
    assert len(list((tmp_path / "killed" / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("upsampler", signal.SIGTERM),
        ("upsampler", signal.SIGINT),
        ("upsampler_1024", signal.SIGTERM),
        ("autoencoder", signal.SIGTERM),
        ("latent_decoder", signal.SIGTERM),
        ("text_decoder", signal.SIGTERM),
        ("kandinsky_decoder", signal.SIGTERM),
    ],
)
def test_a_request_to_stop_saves_and_the_same_command_goes_on(small, tmp_path, monkeypatch, stage, number):
    config = small(stage, "samples=32")
    whole, stopped = (override(config, [f"out={tmp_path / name}"]) for name in ("whole", "stopped"))
    train(whole, device="cpu")
    write, handler = RunFolder.write_metrics, signal.getsignal(number)

    def ask_to_stop(self: RunFolder, samples: int, **values: float) -> None:
        write(self, samples, **values)
        if samples == 16:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_metrics", ask_to_stop)
        with pytest.raises(Interrupted, match="16 samples") as interrupted:
            train(stopped, device="cpu")
    assert interrupted.value.signal == number
    assert signal.getsignal(number) is handler
    assert [one.name for one in RunFolder(stopped).checkpoints.iterdir()] == ["samples-000000000016"]
    assert not RunFolder(stopped).finished
    train(stopped, device="cpu")
    assert _digests(whole) == _digests(stopped)
    assert _measurements(whole) == _measurements(stopped)


def test_a_second_request_is_taken_as_usual():
    # A shell that starts the tests in the background has Ctrl-C ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop
            assert stop.signal == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_signals_are_left_alone_outside_of_the_main_thread():
    found = []

    def enter() -> None:
        with stop_requests() as stop:
            found.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(False, signal.getsignal(signal.SIGTERM))]


def _train_elsewhere(folder: Path, config, *moments: int) -> list[int]:
    file = folder / "config.json"
    file.write_text(json.dumps(to_dict(config)))
    program = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, program, file, *map(str, moments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


def _digests(config) -> dict[str, str]:
    """Of the model and of the last checkpoint: weights, average, moments."""
    out = Path(config.out)
    last = max((out / "checkpoints").iterdir())
    files = [*(out / "model").glob("*.safetensors"), *last.glob("*.safetensors")]
    assert len(files) == 4
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _measurements(config) -> list[dict[str, float]]:
    """The metrics, but for those that tell how long things took."""
    lines = map(json.loads, (Path(config.out) / "metrics.jsonl").read_text().splitlines())
    return [{key: line[key] for key in line.keys() - {"seconds", "rate"}} for line in lines]
