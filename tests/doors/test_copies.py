"""Copies and pickles of a model: they draw the same pictures, or refuse with words."""

import copy
import json
import multiprocessing
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from unclip.errors import ModelError
from unclip.generate.model import Model


def pixels(model: Model) -> bytes:
    return model.generate("a red apple", seed=3)[0].image.tobytes()


def draw(model: Model) -> str:
    return pixels(model).hex()


@pytest.mark.parametrize("used", [False, True])
def test_copies_of_an_opened_model_draw_the_same(small_folder, used):
    model = Model.load(small_folder, device="cpu")
    expected = pixels(Model.load(small_folder, device="cpu"))
    if used:
        pixels(model)
    shallow, deep, pickled = copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    assert shallow.parts is model.parts
    for other in (deep, pickled):
        assert other.parts is not model.parts
        assert (other.name, other.digest, other.dtype, other.device) == (
            model.name,
            model.digest,
            model.dtype,
            model.device,
        )
        assert pixels(other) == expected
    # Its own weights: what happens to the copy does not reach the model.
    with deep.parts.lend("decoder", nn.Module) as network, torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    assert pixels(model) == expected
    assert len(pickle.dumps(model)) < 2000


def test_options_are_kept(small_folder, monkeypatch):
    monkeypatch.chdir(small_folder.parent)
    model = Model.load(
        Path(small_folder.name), device="cpu", offload=True, parts={"prior": small_folder.name}
    )
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(model))
    assert again.parts.offload
    assert (again.name, again.digest) == (model.name, model.digest)


def test_a_model_that_changed_is_refused(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    dumped = pickle.dumps(Model.load(folder, device="cpu"))
    manifest = json.loads((folder / "model.json").read_text())
    manifest["digest" if "digest" in manifest else "weights"] = "000000000000"
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError):
        pickle.loads(dumped)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        pickle.loads(dumped)


def test_networks_in_memory_are_copied(tiny, make_parts, quick):
    parts, tokenizer = make_parts(tiny)
    model = Model.of(parts, tokenizer, name="memory", digest="0123456789ab", defaults=quick)
    expected = pixels(model)
    deep, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        for weight in parts["decoder"].parameters():
            weight.zero_()
    assert pixels(model) != expected
    for other in (deep, pickled):
        assert (other.name, other.digest, other.defaults) == (model.name, model.digest, model.defaults)
        assert pixels(other) == expected


def test_packed_networks_in_memory_are_refused(tiny, make_parts, quick, monkeypatch):
    parts, tokenizer = make_parts(tiny)
    model = Model.of(parts, tokenizer, name="memory", defaults=quick)
    pixels(model)
    monkeypatch.setattr("unclip.generate.parts.is_packed", lambda network: True)
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="'memory' cannot be copied or pickled"):
            copied(model)


def test_a_model_can_be_passed_to_a_process_that_is_spawned(small_folder):
    model = Model.load(small_folder, device="cpu")
    expected = draw(model)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_draw_there, (pickle.dumps(model),)) == expected


def _draw_there(dumped: bytes) -> str:
    torch.set_num_threads(1)
    return draw(pickle.loads(dumped))
