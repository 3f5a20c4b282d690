"""Runs that an older version began are resumed: their configs, their settings' names, their checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip import recipes
from unclip.config import ConfigError, to_dict
from unclip.recipes import tiny
from unclip.train.checkpoint_files import _digest as digest
from unclip.train.checkpoint_files import describe
from unclip.train.config import change, read_config
from unclip.train.run_folder import RunFolder
from unclip.train.state import TrainingState

#: Configs of recipes as version 0.1 wrote them.
V0_1 = Path(__file__).parent / "v0_1"


def test_a_field_that_was_not_there_yet_has_its_default(tmp_path):
    config = replace(tiny.clip(), out=str(tmp_path / "run"))
    RunFolder(config)
    file = tmp_path / "run" / "config.json"
    older = json.loads(file.read_text())
    del older["model"]["loss"]
    file.write_text(json.dumps(older))
    assert RunFolder(config).path == tmp_path / "run"


def test_a_field_that_differs_is_another_run(tmp_path):
    config = replace(tiny.clip(), out=str(tmp_path / "run"))
    RunFolder(config)
    other = replace(config, model=replace(config.model, normalize=not config.model.normalize))
    with pytest.raises(ValueError, match="model"):
        RunFolder(other)


@pytest.mark.parametrize(
    ("recipe", "stage"),
    [
        ("tiny", "clip"),
        ("artwork", "decoder"),
        ("artwork", "upsampler_1024"),
        ("tiny", "prior_autoregressive"),
    ],
)
def test_configs_of_0_1_are_those_of_the_recipes(recipe, stage):
    found = read_config(json.loads((V0_1 / f"{stage}.json").read_text()))
    config = recipes.get(recipe, stage)
    expected = replace(config, out="run", data=replace(config.data, path="shards"), precision=found.precision)
    assert found == expected


def test_a_config_that_cannot_be_read_says_what_to_do(tmp_path):
    config = replace(tiny.clip(), out=str(tmp_path / "run"))
    RunFolder(config)
    file = tmp_path / "run" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "warp": 9}))
    with pytest.raises(ValueError, match=r"cannot resume .*unknown key 'warp'.*choose another --out"):
        RunFolder(config)


@pytest.mark.parametrize(
    ("recipe", "stage", "old", "new"),
    [
        ("tiny", "decoder", "model.dropout_hint=0.9", "dropout_hint=0.9"),
        ("tiny", "decoder", "model.uncertainty=true", "uncertainty=true"),
        ("tiny", "prior", "model.dropout_text=0.2", "dropout_text=0.2"),
        ("tiny", "upsampler", "model.degradation=bsr", "degradation.method=bsr"),
        ("tiny", "upsampler", "model.crop_fraction=0.25", "crop_fraction=0.25"),
        ("artwork", "decoder", "data.uncommon=1", "data.factors.everyday.false=1"),
        ("artwork", "decoder", "data.kinds.pair=0.3", "data.factors.kind.pair=0.3"),
        ("tiny", "clip", 'data.kinds={"pair":0.3}', "data.factors.kind.pair=0.3"),
    ],
)
def test_settings_by_their_names_in_0_1(recipe, stage, old, new, caplog):
    config = recipes.get(recipe, stage)
    found = change(config, [old])
    assert found == change(config, [new]) != config
    assert "is now called" in caplog.text


@pytest.mark.parametrize(
    ("assignment", "told"), [("loss.weight=eps", "'loss'"), ("data.factors.kind=3", "expected an object")]
)
def test_settings_that_a_stage_has_not(assignment, told):
    with pytest.raises(ConfigError, match=told):
        change(tiny.clip(), [assignment])


def test_checkpoints_of_0_1_have_the_networks_names(small, begin):
    """What such a checkpoint goes on to is bitwise what it would have been."""
    config = small("upsampler", "keep=best", "validate_every=8")
    expected = begin(replace(config, out=f"{config.out}-whole"))
    expected.go(until=24)
    run = begin(config)
    run.go(until=16)
    newest = max(run.folder.checkpoints.iterdir())
    for file in newest.glob("*.safetensors"):
        if file.stem != "optimizers":
            weights = load_file(file)
            save_file({name.removeprefix("network."): value for name, value in weights.items()}, file)
    manifest = json.loads((newest / "manifest.json").read_text())
    entries = {file.name: describe(file) for file in newest.glob("*.safetensors")}
    manifest = {key: value for key, value in manifest.items() if key != "sha256"} | {"files": entries}
    (newest / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest(manifest)}))
    resumed = begin(config)
    assert resumed.state.samples == 16
    resumed.go(until=24)
    state: TrainingState = expected.state
    torch.testing.assert_close(resumed.state.model.state_dict(), state.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(resumed.state.best.average, state.best.average, rtol=0, atol=0)


def test_the_config_in_the_folder_becomes_this_versions(tmp_path):
    config = replace(tiny.clip(), out=str(tmp_path / "run"), data=replace(tiny.clip().data, path="shards"))
    RunFolder(config)
    file = tmp_path / "run" / "config.json"
    file.write_text((V0_1 / "clip.json").read_text())
    RunFolder(config)
    assert json.loads(file.read_text()) == json.loads(json.dumps(to_dict(config)))
