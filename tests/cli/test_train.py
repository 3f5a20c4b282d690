"""`unclip train` and `unclip bundle`: settings from the command line, and the errors that a user runs into."""

import json
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from unclip import recipes
from unclip.checkpoints.manifest import read_manifest
from unclip.cli.options import duration
from unclip.config import to_dict
from unclip.train import budget
from unclip.train.loop import Run
from unclip.train.run_folder import RunFolder

STAGES = ["clip", "prior", "decoder", "upsampler"]


def test_dry_run_prints_the_recipe_with_changes(unclip, tmp_path):
    changes = (
        "--set",
        "optimizer.learning_rate=0.5",
        "--seed",
        9,
        "--data",
        "123",
        "--out",
        tmp_path / "run",
    )
    code, out, err = unclip("train", "decoder", "--recipe", "tiny", "--dry-run", *changes)
    assert (code, err) == (0, "")
    expected = json.loads(json.dumps(to_dict(recipes.get("tiny", "decoder"))))
    expected["optimizer"]["learning_rate"], expected["seed"] = 0.5, 9
    expected["data"]["path"], expected["out"] = "123", str(tmp_path / "run")
    assert json.loads(out) == expected
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (("painter",), 2, "painter"),
        (("clip", "--recipe", "none"), 2, "tiny"),
        (("clip", "--recipe", "tiny"), 2, "--out FOLDER"),
        (("clip", "--recipe", "tiny", "--set", "optimizer.rate=1", "-o", "run"), 2, "learning_rate"),
        (("clip", "--recipe", "tiny", "--set", "samples=many", "-o", "run"), 2, "samples"),
        (("clip", "--recipe", "tiny", "--data", "nowhere", "-o", "run"), 1, "nowhere"),
        (("prior", "--recipe", "tiny", "--clip", "nowhere", "-o", "run"), 1, "nowhere"),
        (("clip", "--recipe", "tiny", "--device", "abacus", "-o", "run"), 2, "abacus"),
        (("clip", "--recipe", "tiny", "--budget", "1s", "--data", "nowhere", "-o", "run"), 1, "nowhere"),
        (("upsampler", "--recipe", "tiny", "--clip", "nowhere", "-o", "run"), 2, "reads no CLIP"),
        (("all", "--recipe", "judge", "-o", "run"), 2, "tiny"),
        (("all", "--recipe", "tiny"), 2, "--out FOLDER"),
        (("all", "--recipe", "tiny", "--clip", "run", "-o", "run"), 2, "leave it out"),
        (("all", "--recipe", "tiny", "--set", "batch=4", "-o", "run"), 2, "clip.batch=128"),
        (("all", "--recipe", "tiny", "--set", "clip.size=4", "-o", "run"), 2, "clip"),
        (("all", "--recipe", "tiny", "--data", "nowhere", "-o", "run"), 1, "nowhere"),
    ],
)
def test_bad_input(unclip, tmp_path, monkeypatch, argv, code, told):
    monkeypatch.chdir(tmp_path)
    outcome = unclip("train", *argv)
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_what_saved_it_and_by_which_signal(
    unclip, chain, tmp_path, monkeypatch, number, code
):
    write, cache = RunFolder.write_metrics, chain.parent / "cache"

    def ask_to_stop(self: RunFolder, samples: int, **values: float) -> None:
        write(self, samples, **values)
        signal.raise_signal(number)

    monkeypatch.setattr(RunFolder, "write_metrics", ask_to_stop)
    settings = ("--set", "batch=4", "--set", f'data.cache="{cache}"')
    outcome = unclip("train", "upsampler", "--recipe", "tiny", "--out", tmp_path / "run", *settings)
    assert (outcome.code, outcome.out) == (code, "")
    assert "saved after 4 samples; the same command resumes" in outcome.err


def test_a_finished_run_is_not_trained_again(unclip, chain):
    run = chain.parent / "clip"
    before = (run / "model" / "model.json").stat().st_mtime_ns
    command = ("train", "clip", "--recipe", "tiny", "--out", run, "--set", "samples=32")
    assert unclip(*command) == (0, f"{run / 'model'}\n", "")
    assert (run / "model" / "model.json").stat().st_mtime_ns == before


def test_all_stages_in_one_command(unclip, tmp_path):
    short = [part for stage in STAGES for part in ("--set", f"{stage}.samples=32")]
    command = ("train", "all", "--recipe", "tiny", "--out", tmp_path, "--no-evaluate", "--seed", 3, *short)
    code, out, err = unclip(*command, "--json")
    assert (code, json.loads(out)) == (0, {"model": str(tmp_path / "model")})
    assert [line for line in err.splitlines() if "decoding" not in line] == [
        f"unclip: {stage}: 32 samples" for stage in STAGES
    ]
    manifest = read_manifest(tmp_path / "model")
    assert (manifest.name, sorted(manifest.parts)) == ("tiny", sorted(STAGES))
    assert {part.storage for part in manifest.parts.values()} == {"int8"}
    assert {json.loads((tmp_path / stage / "config.json").read_text())["seed"] for stage in STAGES} == {3}
    # Again: nothing is trained, and the model is the same.
    before = [(tmp_path / stage / "model" / "model.json").stat().st_mtime_ns for stage in STAGES]
    assert unclip(*command)[:2] == (0, f"{tmp_path / 'model'}\n")
    assert [(tmp_path / stage / "model" / "model.json").stat().st_mtime_ns for stage in STAGES] == before
    assert read_manifest(tmp_path / "model") == manifest


def test_a_chain_s_settings(unclip, tmp_path):
    command = ("train", "all", "--recipe", "artwork", "--data", "shards", "-o", tmp_path, "--dry-run")
    code, out, err = unclip(*command, "--budget", "25m", "--seed", 3, "--set", "decoder.batch=7",
                            "--set", "evaluation.count=9")  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads(out)
    asked = found.pop("evaluation")
    assert (asked["count"], asked["data"]) == (9, "shards")
    stages = ["clip", "prior", "prior_autoregressive", "decoder", "upsampler"]
    assert list(found) == [*stages, "judge"]
    assert {name: config["out"] for name, config in found.items()} == {
        name: str(tmp_path / name) for name in found
    }
    assert {name for name, config in found.items() if config.get("clip") == str(tmp_path / "clip")} == {
        "prior",
        "prior_autoregressive",
        "decoder",
    }
    assert {(config["keep"], config["data"]["path"]) for config in found.values()} == {("best", "shards")}
    assert found["decoder"]["batch"] == 7
    assert found["judge"]["seed"] == recipes.get("judge", "clip").seed
    assert {found[stage]["seed"] for stage in stages} == {3}
    plain = json.loads(unclip(*command, "--no-evaluate").out)
    assert (plain["clip"]["keep"], list(plain)) == ("last", stages)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def clock(monkeypatch):
    """Time that passes by a second with each step, validation and preview, and otherwise stands still."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)

    def timed(part):
        def run(self):
            clock.now += 1.0
            return part(self)

        return run

    for name in ("step", "validate", "preview"):
        monkeypatch.setattr(Run, name, timed(getattr(Run, name)))
    for module in ("loop", "run_folder"):
        monkeypatch.setattr(f"unclip.train.{module}.time", clock)
    monkeypatch.setattr(budget, "train_all", partial(budget.train_all, clock=clock.monotonic))
    return clock


JUDGE = (
    "data.size=16", "data.shift=1", "model.embedding=8", "model.vision.size=16", "model.vision.patch=8",
    "model.vision.width=16", "model.vision.layers=1", "model.text.width=16", "model.text.layers=1", "vocabulary=540",
)  # fmt: skip
ASKED = ("count=6", "choices=4", "retrieval_count=12", "upsampled=2")


def test_a_budget_is_shared_goes_on_after_a_stop_and_ends_with_a_measured_model(
    unclip, chain, tmp_path, monkeypatch, clock
):
    """The whole chain as for the bundled model, its judge included: stopped in the decoder, then finished."""
    monkeypatch.setitem(recipes.CHAINS, "tiny", {**recipes.CHAINS["tiny"], "judge": 0.2})
    cache = json.dumps(str(chain.parent / "cache"))
    stages = [*STAGES, "judge"]
    settings = [f"{stage}.{one}" for stage in stages for one in ("batch=8", f"data.cache={cache}")]
    settings += [f"judge.{one}" for one in JUDGE] + [f"evaluation.{one}" for one in ASKED]
    command = ("train", "all", "--recipe", "tiny", "--data", "shapes", "--out", tmp_path, "--budget", "2m",
               *(part for one in settings for part in ("--set", one)))  # fmt: skip
    write = RunFolder.write_metrics

    def ask_to_stop(self: RunFolder, samples: int, **values: float) -> None:
        write(self, samples, **values)
        if self.path == tmp_path / "decoder" and "loss" in values:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_metrics", ask_to_stop)
        code, out, err = unclip(*command)
    assert (code, out) == (143, "")
    assert "saved after 8 samples; the same command resumes" in err
    assert [
        line.partition(":")[2].split(":")[0].strip()
        for line in err.splitlines()
        if ": " in line and "decoding" not in line
    ][:3] == STAGES[:3]
    began = {stage: written_config(tmp_path, stage) for stage in STAGES[:3]}
    assert all(one["keep"] == "best" and one["samples"] > 8 for one in began.values())

    code, out, err = unclip(*command)
    assert (code, out) == (0, f"{tmp_path / 'model'}\n{tmp_path / 'report.json'}\n")
    assert {stage: written_config(tmp_path, stage) for stage in began} == began
    # A run's last validation and preview take as long as a step here, which no real one does: they may be too late.
    assert 100 < clock.now <= 120 + 2 * len(stages)
    manifest = read_manifest(tmp_path / "model")
    assert sorted(manifest.parts) == sorted(STAGES)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["judge"]["independent"] is True
    assert report["counts"] == {"seen shapes": 6, "shapes elsewhere": 6}
    assert "evaluation: 12 pictures to draw" in err
    assert "captions followed" in err

    # Once more, nothing is left to do.
    before, spent = (tmp_path / "report.json").stat().st_mtime_ns, clock.now
    assert unclip(*command)[:2] == (0, out)
    assert ((tmp_path / "report.json").stat().st_mtime_ns, clock.now) == (before, spent)


def written_config(folder: Path, stage: str) -> dict:
    """The config of a run as it stands in its folder."""
    return json.loads((folder / stage / "config.json").read_text())


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("25m", 1500), ("1.5h", 5400)])
def test_times(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["25", "m", "-3m", "0s", "nans", "infh", "2 weeks", ""])
def test_what_is_no_time(unclip, text):
    code, out, err = unclip("train", "clip", "--recipe", "tiny", f"--budget={text}", "-o", "run")
    assert (code, out) == (2, "")
    assert "25m" in err


def test_bundle_joins_the_stages(chain):
    manifest = read_manifest(chain)
    assert sorted(manifest.parts) == ["clip", "decoder", "prior", "upsampler"]
    assert {part.storage for part in manifest.parts.values()} == {"int8"}
    assert manifest.tokenizer is not None
    assert manifest.defaults.decoder.steps == 2


def test_pack_is_the_name_of_bundle_in_0_1(unclip, chain, tmp_path):
    runs = chain.parent
    code, out, _ = unclip("pack", runs / "clip", "-o", tmp_path / "out")
    assert (code, out) == (0, f"{tmp_path / 'out'}\n")


def test_bundle_refuses_what_does_not_fit(unclip, chain, tmp_path):
    runs = chain.parent
    code, _, err = unclip("bundle", runs / "clip", runs / "clip", "-o", tmp_path / "out")
    assert code == 2
    assert "both" in err
    code, _, err = unclip("bundle", runs / "clip", "-o", tmp_path / "out", "--set", "stairs=3")
    assert code == 2
    assert "stairs" in err
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    code, _, err = unclip("bundle", tmp_path / "begun", "-o", tmp_path / "out")
    assert code == 2
    assert "not finished" in err
    (tmp_path / "cache").mkdir()
    code, _, err = unclip("bundle", tmp_path / "cache", "-o", tmp_path / "out")
    assert code == 2
    assert f"note: skipped {tmp_path / 'cache'}" in err
    assert not (tmp_path / "out").exists()


def test_models_describes_a_folder(unclip, chain):
    code, out, err = unclip("models", "show", chain, "--json")
    assert (code, err) == (0, "")
    description = json.loads(out)
    assert description["name"] == "tiny"
    assert description["folder"] == str(chain)
    assert set(description["parts"]) == {"clip", "prior", "decoder", "upsampler"}
    code, out, _ = unclip("models", "show", chain)
    assert code == 0
    assert description["digest"] in out


def test_models_of_nowhere(unclip, tmp_path):
    code, out, err = unclip("models", "show", tmp_path)
    assert (code, out) == (1, "")
    assert "model.json" in err
