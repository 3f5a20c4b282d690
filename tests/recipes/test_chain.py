"""A whole model from Python: its stages' settings, its training, its bundle."""

import pytest

from unclip import recipes
from unclip.checkpoints.manifest import read_manifest
from unclip.config import ConfigError
from unclip.train.chain import train_chain


def test_a_chain_s_settings():
    chain = recipes.chain(
        "artwork",
        "runs",
        data="shards",
        seed=3,
        keep_best=True,
        changes=("decoder.batch=7", "evaluation.count=9"),
    )
    configs = {name: config for name, (config, _) in chain.stages.items()}
    assert {config.data.path for config in configs.values()} == {"shards"}
    assert {config.keep for config in configs.values()} == {"best"}
    assert {config.seed for name, config in configs.items() if name != "judge"} == {3}
    assert configs["judge"].seed == recipes.get("judge", "clip").seed
    assert (configs["decoder"].batch, configs["decoder"].clip) == (7, "runs/clip")
    assert chain.evaluation is not None
    assert (chain.evaluation.count, chain.evaluation.data) == (9, "shards")
    assert chain.sampling == recipes.sampling("artwork")
    assert sum(share for _, share in chain.stages.values()) == pytest.approx(1)


def test_without_an_evaluation_there_is_no_judge():
    chain = recipes.chain("artwork", "runs", evaluate=False)
    assert chain.evaluation is None
    assert "judge" not in chain.stages


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("batch=4", "begin with a stage: clip, prior, decoder, upsampler, evaluation"),
        ("painter.batch=4", "begin with a stage"),
        ("clip.samples=0", "clip: samples is 0"),
        ("evaluation.counts=3", "evaluation: .*'counts'"),
    ],
)
def test_changes_that_do_not_fit(change, told):
    with pytest.raises(ConfigError, match=told):
        recipes.chain("tiny", "runs", changes=[change])


def test_a_chain_is_trained_and_bundled_and_then_left_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.CHAINS, "tiny", {"upsampler": 1.0})
    chain = recipes.chain("tiny", tmp_path, evaluate=False, changes=["upsampler.samples=32"])
    trained = train_chain(chain, device="cpu")
    assert trained == (tmp_path / "model", None)
    manifest = read_manifest(trained.model)
    assert (manifest.name, list(manifest.parts)) == ("tiny", ["upsampler"])
    before = (tmp_path / "upsampler" / "model" / "model.json").stat().st_mtime_ns
    assert train_chain(chain, device="cpu") == trained
    assert (tmp_path / "upsampler" / "model" / "model.json").stat().st_mtime_ns == before
