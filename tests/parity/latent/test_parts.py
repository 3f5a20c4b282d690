"""Parts of other latent models: which fit, and that one that does not is an error that names both numbers."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.parity.latent.conftest import edit, filled, save, vae
from tests.parity.verbs import command
from unclip.checkpoints.io import save_model
from unclip.checkpoints.manifest import read_manifest
from unclip.checkpoints.quantize_model import quantize_model
from unclip.errors import ModelError
from unclip.formats.convert import convert
from unclip.formats.opened import open_model
from unclip.generate.model import Model
from unclip.train.bundle import BundleError, bundle

QUICK: dict[str, Any] = {"seed": 3, "steps": 2}
LEVELS = {
    "block_out_channels": [32, 64, 96],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
}


def with_autoencoder(
    folder: Path, source: Path, network: AutoencoderKL | None = None, **options: Any
) -> Path:
    """A copy of a folder with another autoencoder, or with other options of its own."""
    shutil.copytree(source, folder)
    if network is not None:
        save(network, folder / "vae")
    edit(folder / "vae" / "config.json", **options)
    return folder


@pytest.fixture
def others(saved, tmp_path) -> dict[str, Path]:
    """Stable Diffusion 1 with autoencoders that its U-Net was not trained with."""
    one = saved("sd1")[1]
    return {
        "a quarter": with_autoencoder(tmp_path / "a quarter", one, vae(**LEVELS)),
        "another scale": with_autoencoder(tmp_path / "another scale", one, scaling_factor=0.13025),
        "another encoder": with_autoencoder(tmp_path / "another encoder", one, filled(vae(), 77)),
    }


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("a quarter", "reduced by 8, .* gives 4"),
        ("another scale", "scaled by 0.18215, .* gives 0.13025"),
    ],
)
def test_an_autoencoder_of_other_latents_names_both_numbers(saved, others, tmp_path, name, numbers):
    given = f"the decoder of 'sd1' reads latents {numbers}: they were not made for each other"
    with pytest.raises(ModelError, match=given):
        open_model(saved("sd1")[1], parts={"autoencoder": others[name]})
    # Where the decoder is the part that is taken, it is the one that was trained on other latents.
    with pytest.raises(ModelError, match=f"the decoder of {name!r} reads latents"):
        open_model(saved("sd1")[1], parts={"decoder": others[name]})
    assert open_model(saved("sd1")[1], parts=dict.fromkeys(("decoder", "autoencoder"), others[name])).parts
    made = ["-o", tmp_path / "made.png"]
    one = ["--model", saved("sd1")[1], "--part", f"autoencoder={others[name]}"]
    code, _, err = command("generate", "a cat", *one, *made)
    assert code == 1
    assert "they were not made for each other" in err


def test_other_channels_and_another_shift_are_named(saved, tmp_path):
    """Statistics by channel stand in the configs of this package's own autoencoders."""
    own = convert(saved("sd1")[1], tmp_path / "own")
    data = json.loads((own / "model.json").read_text())
    data["parts"]["autoencoder"]["config"] |= {"mean": [0.0, 0.5, 0.0, 0.0]}
    (own / "model.json").write_text(json.dumps(data))
    with pytest.raises(ModelError, match=r"latents shifted by 0 \(channel 1\), .* gives -0.091075"):
        open_model(saved("sd1")[1], parts={"autoencoder": own})
    wide = with_autoencoder(
        tmp_path / "wide", saved("sd1")[1], filled(AutoencoderKL(**{**vae().config, "latent_channels": 8}), 2)
    )
    # Of a whole folder, whose U-Net does not fit; and of the autoencoder alone.
    with pytest.raises(ModelError, match=r"the U-Net reads 4 channels .* the vae's latent has 8"):
        open_model(wide)
    with pytest.raises(ModelError, match="latents of so many channels: 4, the autoencoder of 'vae' gives 8"):
        open_model(saved("sd1")[1], parts={"autoencoder": wide / "vae"})


def test_autoencoders_of_one_form_are_exchangeable(saved, others, tmp_path, caplog):
    """Those of versions 1 and 2, and one whose decoder alone was trained further; another encoder is noted in the log."""
    one, two = saved("sd1")[1], saved("sd2")[1]
    with caplog.at_level(logging.WARNING):
        assert open_model(one, parts={"autoencoder": two}).parts["autoencoder"].model == "sd2"
        further = with_autoencoder(tmp_path / "further", one)
        file = further / "vae" / "diffusion_pytorch_model.safetensors"
        weights = load_file(file)
        weights["decoder.conv_out.bias"] = weights["decoder.conv_out.bias"] + 0.5
        save_file(weights, file)
        model = Model.load(one, device="cpu", parts={"autoencoder": further / "vae"})
        plain = Model.load(one, device="cpu").generate("a red cat", **QUICK)[0].image
        shifted = np.asarray(model.generate("a red cat", **QUICK)[0].image, int) - np.asarray(plain, int)
        assert 10 < shifted.mean() <= 64
    assert not caplog.records
    open_model(one, parts={"autoencoder": others["another encoder"]})
    assert "'another encoder' has another encoder than the one that the decoder of 'sd1'" in caplog.text


def test_a_decoder_saved_alone_remembers_its_latents(saved, others, tmp_path):
    """As `train` saves it; a bundle with an autoencoder of another form is refused, and one kept small remembers it too."""
    form = open_model(saved("sd1")[1]).parts["decoder"].latents()
    decoder = open_model(saved("sd1")[1]).parts["decoder"].load()
    alone = save_model(tmp_path / "alone", {"decoder": decoder}, name="alone", latents=form)
    small = tmp_path / "small"
    quantize_model(alone, small, storage="int8")
    assert read_manifest(small).latents == form
    own = convert(others["another scale"], tmp_path / "own")
    text = save_model(tmp_path / "text", {"text": open_model(own).parts["text"].load()}, name="text")
    autoencoder = {"autoencoder": open_model(own).parts["autoencoder"].load()}
    other = save_model(tmp_path / "other", autoencoder, name="other")
    for folder in (alone, small):
        with pytest.raises(ModelError, match=r"'alone' reads latents scaled by 0.18215, .* gives 0.13025"):
            open_model(folder, parts={"autoencoder": own})
        with pytest.raises(BundleError, match=r"'alone' reads latents scaled by 0.18215, .* gives 0.13025"):
            bundle([text, other, folder], tmp_path / "whole", "whole")
    # A bundle without an autoencoder passes the record on.
    assert read_manifest(bundle([text, alone], tmp_path / "whole", "whole")).latents == form
    data = json.loads((alone / "model.json").read_text())
    for wrong in ({"scale": 0}, {"mean": [0.0]}, {"factor": "8"}, {"colour": 1}):
        (alone / "model.json").write_text(json.dumps(data | {"latents": data["latents"] | wrong}))
        with pytest.raises(ModelError, match=r"model\.json: .*latents"):
            open_model(alone)


def test_an_autoencoder_alone_is_a_part(saved, tmp_path):
    one = saved("sd1")[1]
    shutil.copytree(one / "vae", alone := tmp_path / "alone")
    (alone / "README.md").write_text("---\nlicense: mit\n---\n")
    model = Model.load(one, device="cpu", parts={"autoencoder": alone})
    assert model.parts.licence == "mit"
    assert (
        model.generate("a cat", **QUICK)[0].image.tobytes()
        == Model.load(one, device="cpu").generate("a cat", **QUICK)[0].image.tobytes()
    )
    edit(alone / "config.json", block_out_channels=[32, 48])
    with pytest.raises(ModelError, match="not multiples of the first"):
        open_model(one, parts={"autoencoder": alone})


@pytest.mark.parametrize(
    ("base", "part", "other", "message"),
    [
        ("sd1", "prior", "unclip l", "the decoder of 'sd1' reads no image embeddings"),
        ("sd1", "text", "sd2", "reads text states of width 24, the text of 'sd2' gives 48"),
        ("sd1", "autoencoder", "artwork", "'artwork' has no autoencoder"),
        ("artwork", "autoencoder", "sd1", "the decoder of 'artwork' draws pixels, not latents"),
        ("artwork", "text", "sd1", "the decoder of 'artwork' reads no text encoder's states"),
    ],
)
def test_a_part_without_a_use_is_an_error(saved, base, part, other, message):
    def place(name: str) -> Any:
        return name if name == "artwork" else saved(name)[1]

    with pytest.raises(ModelError, match=message):
        open_model(place(base), parts={part: place(other)})


def test_a_decoder_brings_its_text_tower_and_its_autoencoder(saved, tmp_path):
    """To a model without them, where CLIP's states would be read in place of the tower's."""
    clip = save_model(
        tmp_path / "clip",
        {"clip": open_model(saved("unclip l")[1]).parts["clip"].load()},
        name="clip",
        tokenizer=open_model(saved("unclip l")[1]).tokenizer().to_json(),
    )
    model = Model.load(clip, device="cpu", parts={"decoder": saved("sd1")[1]})
    assert {"text", "autoencoder"} <= set(model.parts.names)
    assert model.defaults.decoder.guidance == 7.5
    made = model.generate("a red cat", prior="none", **QUICK)[0].image
    own = Model.load(saved("sd1")[1], device="cpu").generate("a red cat", **QUICK)[0].image
    assert np.abs(np.asarray(made, int) - np.asarray(own, int)).max() <= 1


def test_each_text_tower_reads_by_the_tokenizer_that_it_came_with(saved, tmp_path):
    """A vocabulary in another order, of the same size, under weights in the same order: the same states."""
    one = saved("sd1")[1]
    shutil.copytree(one, other := tmp_path / "other")
    backend = json.loads((other / "tokenizer" / "tokenizer.json").read_text())
    vocabulary = backend["model"]["vocab"]
    first, second = (vocabulary[name] for name in ("ca", "re"))
    order = {first: second, second: first}
    backend["model"]["vocab"] = {name: order.get(number, number) for name, number in vocabulary.items()}
    first, second = (vocabulary[name] for name in ("cat</w>", "red</w>"))
    order = {first: second, second: first}
    backend["model"]["vocab"] = {name: order.get(number, number) for name, number in vocabulary.items()}
    Tokenizer.from_str(json.dumps(backend))
    (other / "tokenizer" / "tokenizer.json").write_text(json.dumps(backend))
    (other / "tokenizer" / "vocab.json").unlink(missing_ok=True)
    file = other / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    (name,) = (key for key in weights if key.endswith("token_embedding.weight"))
    weights[name] = weights[name][[order.get(index, index) for index in range(len(weights[name]))]]
    save_file(weights, file, metadata={"format": "pt"})
    made = [
        Model.load(one, device="cpu", parts=parts).generate("a red cat", **QUICK)[0].image.tobytes()
        for parts in ({}, {"text": other}, {"text": other, "autoencoder": other})
    ]
    assert made[0] == made[1] == made[2]
    # A CLIP brings a tokenizer, which is not that of the tower that stays.
    with_clip = open_model(other, parts={"clip": saved("unclip l")[1]})
    assert with_clip.tokenizers["text"]().to_json() == open_model(other).tokenizer().to_json()
    assert torch.equal(
        with_clip.tokenizers["text"]().encode(["red cat"]), open_model(other).tokenizer().encode(["red cat"])
    )
