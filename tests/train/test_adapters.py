"""Adapters in training: the weights stay, a resumed run gives the same adapter, and models load it at a strength."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import unclip
from unclip.checkpoints.adapters import read_adapter
from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest
from unclip.cli.main import main
from unclip.errors import ModelError
from unclip.networks.adapter import AdapterConfig
from unclip.train.bundle import bundle
from unclip.train.loop import train


@pytest.fixture
def base(small) -> Path:
    """A finished decoder whose output is not zero."""
    return train(small("decoder", "samples=32", "optimizer.learning_rate=0.02"), device="cpu")


@pytest.fixture
def config(small, base, tmp_path):
    """A run of an adapter for it."""
    made = small("decoder", "samples=32", "optimizer.learning_rate=0.05", f"init={base}")
    adapter = AdapterConfig(rank=2, targets=r".*attention.*\.(qkv|out|context_kv)|net\.exit")
    return replace(made, adapter=adapter, out=str(tmp_path / "adapter"))


def test_only_the_adapter_is_trained_and_resumes_to_the_bit(config, base, begin, tmp_path):
    run = begin(config)
    trained = {name for name, one in run.task.named_parameters() if one.requires_grad}
    assert trained
    assert all(name.startswith("adapter.") for name in trained)
    assert {name for group in run.groups for name, _ in group.parameters} == trained
    folder = run.finish()
    before = load_part(base, read_manifest(base), "decoder").state_dict()
    assert all(torch.equal(value, before[name]) for name, value in run.task.network.state_dict().items())
    found = read_adapter(folder)
    assert (found.part, found.model) == ("decoder", "model")
    assert any(one.up.abs().sum() > 0 for one in found.layers.values())
    # Finished: nothing is trained again.
    assert train(config, device="cpu") == folder
    stopped = replace(config, out=str(tmp_path / "stopped"))
    begin(stopped).go(until=16)
    again = begin(stopped).finish()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_model_draws_with_it_at_a_strength_and_merged(config, base, begin, clip_run, tmp_path, capsys):
    adapter = begin(config).finish()
    plain = bundle([clip_run, base], tmp_path / "plain", "plain", storage="float32")

    def drawn(folder: Path, **options):
        model = unclip.load(folder, device="cpu", **options)
        return model.vary(start, seed=3, steps=3, guidance=1.0)[0]

    start = unclip.load(plain, device="cpu").reconstruct(_grey(), steps=2).image
    without, zero, whole = (
        drawn(plain, **({} if strength is None else {"adapters": {adapter: strength}}))
        for strength in (None, 0.0, 1.0)
    )
    assert without.image.tobytes() == zero.image.tobytes()
    assert without.image.tobytes() != whole.image.tobytes()
    assert whole.provenance["adapters"] == {"model": 1.0}
    assert len({without.provenance["digest"], zero.provenance["digest"], whole.provenance["digest"]}) == 3
    assert drawn(plain, adapters={adapter: 1.0}, offload=True).image.tobytes() == whole.image.tobytes()
    merged = bundle(
        [clip_run, base], tmp_path / "merged", "merged", storage="float32", adapters={adapter: 1.0}
    )
    assert drawn(merged).image.tobytes() == whole.image.tobytes()
    # The command line: draw, and redo with the same adapter.
    start.save(tmp_path / "start.png")
    common = ["--model", str(plain), "--device", "cpu", "--adapter", f"{adapter}:0.5"]
    file = tmp_path / "half.png"
    arguments = [
        "vary",
        str(tmp_path / "start.png"),
        "-o",
        str(file),
        "-n",
        "1",
        "--steps",
        "2",
        "--seed",
        "1",
        *common,
    ]
    assert main(arguments) == 0
    redo = ["redo", str(file), "--source", str(tmp_path / "start.png"), "-o", str(tmp_path / "again.png")]
    capsys.readouterr()
    code = main([*redo, *common, "--json"])
    assert code == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["identical"]
    assert main([*redo, "-f", "--model", str(plain)]) != 0


def test_an_adapter_of_another_model_is_refused(config, begin, small, clip_run, tmp_path):
    adapter = begin(config).finish()
    other = train(replace(small("decoder", "samples=8", "seed=5"), out=str(tmp_path / "other")), device="cpu")
    model = unclip.load(
        bundle([clip_run, other], tmp_path / "model", "m"), device="cpu", adapters={adapter: 1.0}
    )
    with pytest.raises(ModelError, match="was trained on model, whose weights are not those"):
        model.reconstruct(_grey(), steps=2)
    with pytest.raises(ModelError, match="changes the part 'decoder', which this model does not have"):
        unclip.load(clip_run / "model", device="cpu", adapters={adapter: 1.0})


def test_settings_that_make_no_adapter(config, small):
    with pytest.raises(ValueError, match="adapter is for the weights of a model: set init"):
        replace(config, init=None)
    with pytest.raises(ValueError, match=r"adapter\.rank is 0"):
        AdapterConfig(rank=0)


def _grey():
    from unclip.images import to_image

    return to_image(torch.linspace(-1, 1, 3 * 16 * 16).reshape(3, 16, 16))
