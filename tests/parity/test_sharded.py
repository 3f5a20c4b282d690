"""Weights in shards, as diffusers and transformers write them: the same numbers, and errors that name the shard."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import PriorTransformer
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from unclip.errors import ModelError
from unclip.formats.convert import convert
from unclip.formats.key_maps import clip as clip_map
from unclip.formats.opened import open_model
from unclip.formats.registry import recognise
from unclip.networks.clip import Clip
from unclip.networks.prior_diffusion import DiffusionPrior


@pytest.fixture(scope="module")
def sharded(karlo_pipeline, tmp_path_factory) -> Path:
    """Karlo's folder in shards."""
    folder = tmp_path_factory.mktemp("sharded") / "karlo"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        karlo_pipeline.save_pretrained(folder, max_shard_size="90KB")
    return folder


@pytest.fixture
def folder(sharded, tmp_path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(sharded, tmp_path / "karlo"))


def same(ours: torch.nn.Module, others: torch.nn.Module) -> bool:
    theirs = others.state_dict()
    return all(torch.equal(weight, theirs[name]) for name, weight in ours.state_dict().items())


def test_karlo(sharded, karlo_folder):
    assert len(list(sharded.glob("*/*-of-*.safetensors"))) > 8
    assert not list(sharded.glob("decoder/diffusion_pytorch_model.safetensors"))
    whole, parts = open_model(karlo_folder).parts, open_model(sharded).parts
    assert parts.keys() == whole.keys()
    assert all(same(parts[name].load(), whole[name].load()) for name in parts)


def test_a_prior_alone(tmp_path):
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        embedding_dim=8,
        num_embeddings=5,
        additional_embeddings=3,
    )
    prior.save_pretrained(tmp_path, max_shard_size="5KB")
    # ECLIPSE's files have no label.
    for file in tmp_path.glob("*.safetensors"):
        held = load_file(file)
        save_file({name: w for name, w in held.items() if not name.startswith("time_embedding")}, file)
    loaded = open_model(tmp_path).parts["prior"].load()
    assert isinstance(loaded, DiffusionPrior)
    assert torch.equal(loaded.image_out.weight, prior.proj_to_clip_embeddings.weight)


def tiny_clip(folder: Path) -> CLIPModel:
    """transformers' CLIP, written in shards."""
    names = {"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}
    CLIPTokenizer(vocab=names, merges=[], model_max_length=12).save_pretrained(folder)
    tower = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 256}
    tower |= {"projection_dim": 16}
    text = tower | {"vocab_size": 4, "max_position_embeddings": 12, "eos_token_id": 3}
    vision = tower | {"image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(projection_dim=16, text_config=text, vision_config=vision))
    model.save_pretrained(folder, max_shard_size="200KB")
    return model


def test_clip(tmp_path):
    model = tiny_clip(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = open_model(tmp_path).parts["clip"].load()
    assert isinstance(loaded, Clip)
    assert torch.equal(loaded.text.project.weight, model.text_projection.weight)
    # OpenCLIP's copy of the same model beside it, in shards too, is what is read then.
    table, ours = clip_map.openai_table(), loaded.state_dict()
    theirs = table.to_theirs({name: weight + 1 for name, weight in ours.items()})
    index = {}
    for number, start in enumerate(("visual.", ("t", "p", "l"))):
        name = f"open_clip_model-0000{number + 1}-of-00002.safetensors"
        piece = {key: weight.contiguous() for key, weight in theirs.items() if key.startswith(start)}
        save_file(piece, tmp_path / name)
        index |= dict.fromkeys(piece, name)
    assert index.keys() == theirs.keys()
    (tmp_path / "open_clip_model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    sizes = {"width": 64, "layers": 2}
    model_cfg = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "patch_size": 8, **sizes},
        "text_cfg": {"context_length": 12, "vocab_size": 4, "heads": 1, **sizes},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg}))
    found = recognise(tmp_path)
    assert found is not None
    assert found.format == "openclip"
    other = found.parts["clip"].load()
    assert other.config == loaded.config
    assert all(torch.equal(weight, ours[name] + 1) for name, weight in other.state_dict().items())
    for file in tmp_path.glob("open_clip_model*"):
        file.unlink()
    assert recognise(tmp_path).format == "clip"


def test_pickled_shards_are_converted(folder, tmp_path, karlo_folder):
    index = folder / "prior" / "diffusion_pytorch_model.safetensors.index.json"
    data = json.loads(index.read_text())
    for file in (folder / "prior").glob("*.safetensors"):
        torch.save(load_file(file), file.with_suffix(".bin"))
        file.unlink()
    data["weight_map"] = {key: name.replace("safetensors", "bin") for key, name in data["weight_map"].items()}
    index.with_name("diffusion_pytorch_model.bin.index.json").write_text(json.dumps(data))
    index.unlink()
    with pytest.raises(ModelError, match=r"00001-of-\d+\.bin is pickled"):
        open_model(folder)
    converted = open_model(convert(folder, tmp_path / "ours"))
    assert same(converted.parts["prior"].load(), open_model(karlo_folder).parts["prior"].load())


def test_shards_that_are_missing_doubled_or_elsewhere(folder):
    index = next((folder / "decoder").glob("*.index.json"))
    first, second, *_ = sorted((folder / "decoder").glob("*.safetensors"))
    held, more = load_file(first), load_file(second)
    name, weight = next(iter(more.items()))
    save_file({**held, name: weight}, first)
    with pytest.raises(
        ModelError, match=rf"{second.name} holds the weight {name}, and so does .*{first.name}"
    ):
        open_model(folder).parts["decoder"].load()
    first.write_bytes(first.read_bytes()[:-10])
    with pytest.raises(ModelError, match=rf"{first.name} is damaged"):
        open_model(folder).parts["decoder"].load()
    first.unlink()
    with pytest.raises(ModelError, match=rf"{first.name} is missing, which .*index\.json names"):
        recognise(folder)
    data = json.loads(index.read_text())
    for wrong in ({"a": "../secret.safetensors"}, {}, ["a"], {"a": 1}):
        index.write_text(json.dumps(data | {"weight_map": wrong}))
        with pytest.raises(ModelError, match=r"index\.json is damaged: its weight_map"):
            recognise(folder)
