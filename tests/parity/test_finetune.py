"""Fine-tuning of Karlo's folder: all weights, or an adapter, with CLIP's own text tower."""

import json

import pytest
import torch
from safetensors.torch import load_file

import unclip
from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest
from unclip.cli.main import main
from unclip.formats.opened import open_model

SHORT = ["samples=8", "batch=4", "micro_batch=2", 'data.path="shapes"', "precision=fp32", "compile=false"]


def short(*further: str) -> list[str]:
    return [word for setting in (*SHORT, *further) for word in ("--set", setting)]


def test_karlo_s_decoder(variation_folder, tmp_path, capsys):
    out = tmp_path / "whole"
    arguments = ["train", "decoder", "--init", str(variation_folder), "--device", "cpu", "-o", str(out)]
    assert main([*arguments, *short("optimizer.learning_rate=1e-3")]) == 0, capsys.readouterr().err
    manifest = read_manifest(out / "model")
    original = open_model(variation_folder).parts["decoder"]
    assert manifest.parts["decoder"].config["caption"]["tower"] == "clip"
    tuned = load_part(out / "model", manifest, "decoder").state_dict()
    before = original.load().state_dict()
    assert tuned.keys() == before.keys()
    assert all(tuned[name].shape == before[name].shape for name in tuned)
    assert not all(torch.equal(tuned[name], before[name]) for name in tuned)
    config = json.loads((out / "config.json").read_text())
    assert (config["dropout_image"], config["dropout_caption"]) == (0.1, 0.5)
    # An adapter of it, which the public folder draws with.
    lora = tmp_path / "lora"
    arguments = ["train", "decoder", "--init", str(variation_folder), "--lora", "2", "-o", str(lora)]
    assert main([*arguments, "--device", "cpu", *short("optimizer.learning_rate=0.05")]) == 0
    weights = load_file(lora / "model" / "adapter_model.safetensors")
    assert any(value.abs().sum() > 0 for name, value in weights.items() if "lora_B" in name)
    picture = unclip.load(variation_folder, device="cpu").vary(
        _picture(), seed=1, steps=2, upsampler_steps=2
    )[0]
    model = unclip.load(variation_folder, device="cpu", adapters={lora / "model": 1.0})
    other = model.vary(_picture(), seed=1, steps=2, upsampler_steps=2)[0]
    assert picture.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["autoencoder", "--init", "{}"], "but no autoencoder: name a model with one"),
        (["text_decoder", "--init", "{}"], "is trained by the stage decoder, not text_decoder"),
        (["decoder", "--lora", "4"], "--lora trains an adapter of a model: give --init MODEL"),
        (["decoder", "--init", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_tuned_is_named(variation_folder, capsys, words, message):
    assert main(["train", *(word.format(variation_folder) for word in words), "-o", "x"]) == 2
    assert message in capsys.readouterr().err


def _picture():
    from unclip.images import to_image

    return to_image(torch.linspace(-1, 1, 3 * 32 * 32).reshape(3, 32, 32))
