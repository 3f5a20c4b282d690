"""GLIDE's files as released: pickled, without configs and tokenizer; converted, all weights and words are there."""

import gzip
import json

import pytest
import torch

from unclip.checkpoints.manifest import read_manifest
from unclip.errors import ModelError
from unclip.formats import glide
from unclip.formats.convert import convert
from unclip.formats.opened import open_model
from unclip.tokenizers.glide import GlideTokenizer

NAMES = {
    "base": "base.pt",
    "upsample": "upsample.pt",
    "base_inpaint": "base_inpaint.pt",
    "upsample_inpaint": "upsample_inpaint.pt",
}


@pytest.fixture
def small(monkeypatch, sizes):
    monkeypatch.setattr(glide, "GLIDE", sizes)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory, words):
    """As GLIDE's code holds it."""
    folder, (names, merges) = tmp_path_factory.mktemp("words"), words
    (folder / "encoder.json.gz").write_bytes(gzip.compress(json.dumps(names).encode()))
    lines = ["#version: 0.2", *map(" ".join, merges), ""]
    (folder / "vocab.bpe.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


def released(folder, nets, names):
    for name in names:
        torch.save(nets[name].state_dict(), folder / NAMES[name])
    return folder


@pytest.mark.parametrize("names", [("base", "upsample"), ("base_inpaint", "upsample_inpaint")])
def test_every_weight_is_converted(tmp_path, small, nets, networks, tokenizer_folder, words, names):
    (source := tmp_path / "glide").mkdir()
    target = convert(released(source, nets, names), tmp_path / "out", tokenizer=tokenizer_folder)
    opened = open_model(target)
    for part, name in zip(("decoder", "upsampler"), names):
        loaded, expected = opened.parts[part].load(), networks[name]
        assert loaded.config == expected.config
        held = loaded.state_dict()
        assert all(torch.equal(held[key], value) for key, value in expected.state_dict().items())
    manifest = read_manifest(target)
    assert manifest.licence == "mit"
    assert manifest.defaults.decoder.steps == 100
    assert manifest.defaults.decoder.guidance == (5.0 if names[0].endswith("inpaint") else 3.0)
    read, expected = opened.tokenizer(), GlideTokenizer(*words, context=12)
    assert read.encode(["A red cat"]).equal(expected.encode(["a red cat"]))


@pytest.mark.parametrize("form", ["vocab.json", "tokenizer.json"])
def test_other_forms_of_the_tokenizer(tmp_path, small, words, form):
    names, merges = words
    expected = GlideTokenizer(names, merges, context=12)
    if form == "vocab.json":
        (tmp_path / form).write_text(json.dumps(names))
        (tmp_path / "merges.txt").write_text("\n".join(map(" ".join, merges)))
    else:
        (tmp_path / form).write_text(expected.backend.to_str())
    assert glide.tokenizer_at(tmp_path).to_json() == expected.to_json()


def test_what_is_missing_is_named(tmp_path, small, nets, tokenizer_folder):
    (source := tmp_path / "glide").mkdir()
    released(source, nets, ["base"])
    with pytest.raises(ModelError, match=r"holds base\.pt without upsample\.pt"):
        convert(source, tmp_path / "out", tokenizer=tokenizer_folder)
    released(source, nets, ["upsample", "base_inpaint"])
    with pytest.raises(ModelError, match="models of their own"):
        convert(source, tmp_path / "out", tokenizer=tokenizer_folder)
    (source / "base_inpaint.pt").unlink()
    with pytest.raises(ModelError, match="without a tokenizer"):
        convert(source, tmp_path / "out")
    with pytest.raises(ModelError, match="no tokenizer of GPT-2"):
        convert(source, tmp_path / "out", tokenizer=source)
    (bad := tmp_path / "bad").mkdir()
    (bad / "vocab.json").write_text('{"a": 0}')
    (bad / "merges.txt").write_text("")
    with pytest.raises(ModelError, match="tokenizer's files are damaged"):
        convert(source, tmp_path / "out", tokenizer=bad)


def test_the_real_sizes_need_the_real_words(tmp_path, nets, tokenizer_folder):
    (source := tmp_path / "glide").mkdir()
    released(source, nets, ["base", "upsample"])
    with pytest.raises(ModelError, match="GLIDE reads 50257 and 128: give GPT-2's"):
        convert(source, tmp_path / "out", tokenizer=tokenizer_folder)
