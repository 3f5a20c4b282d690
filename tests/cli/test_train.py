"""`unclip train` and `unclip pack`: settings from the command line, and the errors that a user runs into."""

import json
import signal

import pytest

from unclip import recipes
from unclip.checkpoints.manifest import read_manifest
from unclip.cli.options import duration
from unclip.config import to_dict
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
    unclip, model, tmp_path, monkeypatch, number, code
):
    write, cache = RunFolder.write_metrics, model.parent / "cache"

    def ask_to_stop(self: RunFolder, samples: int, **values: float) -> None:
        write(self, samples, **values)
        signal.raise_signal(number)

    monkeypatch.setattr(RunFolder, "write_metrics", ask_to_stop)
    settings = ("--set", "batch=4", "--set", f'data.cache="{cache}"')
    outcome = unclip("train", "upsampler", "--recipe", "tiny", "--out", tmp_path / "run", *settings)
    assert (outcome.code, outcome.out) == (code, "")
    assert "saved after 4 samples; the same command goes on" in outcome.err


def test_a_finished_run_is_not_trained_again(unclip, model):
    run = model.parent / "clip"
    before = (run / "model" / "model.json").stat().st_mtime_ns
    command = ("train", "clip", "--recipe", "tiny", "--out", run, "--set", "samples=32")
    assert unclip(*command) == (0, f"{run / 'model'}\n", "")
    assert (run / "model" / "model.json").stat().st_mtime_ns == before


def test_all_stages_in_one_command(unclip, tmp_path):
    short = [part for stage in STAGES for part in ("--set", f"{stage}.samples=32")]
    command = ("train", "all", "--recipe", "tiny", "--out", tmp_path, "--no-evaluate", "--seed", 3, *short)
    code, out, err = unclip(*command, "--json")
    assert (code, json.loads(out)) == (0, {"model": str(tmp_path / "model")})
    assert err.splitlines() == [f"unclip: {stage}: 32 samples" for stage in STAGES]
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
    assert list(found) == [*STAGES, "judge"]
    assert {name: config["out"] for name, config in found.items()} == {
        name: str(tmp_path / name) for name in found
    }
    assert {name for name, config in found.items() if config["clip"] == str(tmp_path / "clip")} == {
        "prior",
        "decoder",
    }
    assert {(config["keep"], config["data"]["path"]) for config in found.values()} == {("best", "shards")}
    assert found["decoder"]["batch"] == 7
    assert found["judge"]["seed"] == recipes.get("judge", "clip").seed
    assert {found[stage]["seed"] for stage in STAGES} == {3}
    plain = json.loads(unclip(*command, "--no-evaluate").out)
    assert (plain["clip"]["keep"], list(plain)) == ("last", list(STAGES))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("25m", 1500), ("1.5h", 5400)])
def test_times(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["25", "m", "-3m", "0s", "nans", "infh", "2 weeks", ""])
def test_what_is_no_time(unclip, text):
    code, out, err = unclip("train", "clip", "--recipe", "tiny", f"--budget={text}", "-o", "run")
    assert (code, out) == (2, "")
    assert "25m" in err


def test_pack_joins_the_stages(model):
    manifest = read_manifest(model)
    assert sorted(manifest.parts) == ["clip", "decoder", "prior", "upsampler"]
    assert {part.storage for part in manifest.parts.values()} == {"int8"}
    assert manifest.tokenizer is not None
    assert manifest.defaults["steps"] == 2


def test_pack_refuses_what_does_not_fit(unclip, model, tmp_path):
    runs = model.parent
    code, _, err = unclip("pack", runs / "clip", runs / "clip", "-o", tmp_path / "out")
    assert code == 2
    assert "both" in err
    code, _, err = unclip("pack", runs / "clip", "-o", tmp_path / "out", "--set", "stairs=3")
    assert code == 2
    assert "stairs" in err
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    code, _, err = unclip("pack", tmp_path / "begun", "-o", tmp_path / "out")
    assert code == 2
    assert "not finished" in err
    (tmp_path / "cache").mkdir()
    code, _, err = unclip("pack", tmp_path / "cache", "-o", tmp_path / "out")
    assert code == 2
    assert f"passed over {tmp_path / 'cache'}" in err
    assert not (tmp_path / "out").exists()


def test_models_describes_a_folder(unclip, model):
    code, out, err = unclip("models", "show", model, "--json")
    assert (code, err) == (0, "")
    description = json.loads(out)
    assert description["name"] == "tiny"
    assert description["folder"] == str(model)
    assert set(description["parts"]) == {"clip", "prior", "decoder", "upsampler"}
    code, out, _ = unclip("models", "show", model)
    assert code == 0
    assert description["weights"] in out


def test_models_of_nowhere(unclip, tmp_path):
    code, out, err = unclip("models", "show", tmp_path)
    assert (code, out) == (1, "")
    assert "model.json" in err
