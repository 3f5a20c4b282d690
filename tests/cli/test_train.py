"""`unclip train` and `unclip pack`: settings from the command line, and the errors that a user runs into."""

import json

import pytest

from unclip import recipes
from unclip.checkpoints.manifest import read_manifest
from unclip.config import to_dict


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
    ],
)
def test_bad_input(unclip, tmp_path, monkeypatch, argv, code, told):
    monkeypatch.chdir(tmp_path)
    outcome = unclip("train", *argv)
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err
    assert "Traceback" not in outcome.err


def test_a_finished_run_is_not_trained_again(unclip, model):
    run = model.parent / "clip"
    before = (run / "model" / "model.json").stat().st_mtime_ns
    command = ("train", "clip", "--recipe", "tiny", "--out", run, "--set", "samples=32")
    assert unclip(*command) == (0, f"{run / 'model'}\n", "")
    assert (run / "model" / "model.json").stat().st_mtime_ns == before


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
    code, out, err = unclip("models", model, "--json")
    assert (code, err) == (0, "")
    description = json.loads(out)
    assert description["name"] == "tiny"
    assert description["folder"] == str(model)
    assert set(description["parts"]) == {"clip", "prior", "decoder", "upsampler"}
    code, out, _ = unclip("models", model)
    assert code == 0
    assert description["weights"] in out


def test_models_of_nowhere(unclip, tmp_path):
    code, out, err = unclip("models", tmp_path)
    assert (code, out) == (1, "")
    assert "model.json" in err
