"""Options of `unclip.load`: checked before anything is read, numbers of any library, all adapters recorded."""

import shutil
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unclip
from unclip.checkpoints.adapters import save_adapter
from unclip.errors import RequestError
from unclip.generate.calibration import accelerate
from unclip.networks.adapter import Adapter, AdapterConfig


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def adapters(folder, tmp_path_factory):
    """Two adapters of one name in folders of their own, as diffusers' are."""
    model = unclip.load(folder, device="cpu")
    made = []
    for number, name in enumerate(("red", "blue")):
        place = tmp_path_factory.mktemp("adapters") / name / "lora"
        with model.parts.lend("decoder", nn.Module) as network:
            torch.manual_seed(number)
            adapter = Adapter(network, AdapterConfig(rank=2, alpha=2.0))
            for low in adapter.layers:
                nn.init.normal_(low.up, std=0.05)  # pyright: ignore[reportArgumentType]
            kind: Any = network.config
            save_adapter(place, adapter, network, part="decoder", model="tiny", kind=kind.kind)
        made.append(place)
    return made


QUICK = {"prior_steps": 1, "steps": 1, "upsampler_steps": 1, "candidates": 1, "seed": 1}


@pytest.mark.parametrize(
    "strength", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), np.array(0.5), 0.5], ids=repr
)
def test_strengths_of_any_library_are_drawn_and_saved(folder, adapters, tmp_path, strength):
    """numpy's numbers were drawn with, and then had no form in the picture's provenance."""
    model = unclip.load(folder, device="cpu", adapters={adapters[0]: strength})
    (picture,) = model.generate("a red cat", **QUICK)
    picture.save(tmp_path / "one.png")
    assert unclip.Image.open(tmp_path / "one.png").provenance["adapters"] == {"lora": 0.5}
    plain = unclip.load(folder, device="cpu", adapters={adapters[0]: 0.5})
    assert plain.digest == model.digest


def test_two_adapters_of_one_name_are_both_recorded(folder, adapters):
    model = unclip.load(folder, device="cpu", adapters={adapters[0]: 1, str(adapters[1]): 0.25})
    (picture,) = model.generate("a red cat", **QUICK)
    assert picture.provenance["adapters"] == {"red/lora": 1.0, "blue/lora": 0.25}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapters": {"x": float("nan")}}, "the strength of the adapter x is nan: give a finite number"),
        ({"adapters": {"x": np.float32("inf")}}, "the strength of the adapter x is inf"),
        ({"adapters": {"x": "0.5"}}, "the strength of the adapter x: expected float, got '0.5'"),
        ({"adapters": {"x": None}}, "expected float, got None"),
        ({"adapters": {"x": True}}, "expected float, got True"),
        ({"adapters": {"x": Fraction(1, 2)}}, "expected float, got Fraction"),
        ({"adapters": ["x"]}, r"adapters is \['x'\]: give the strength of each by its path"),
        ({"adapters": {5: 1.0}}, "adapters: 5 is no path"),
        ({"tile": 0}, "tile is 0"),
        ({"tile": -64}, "tile is -64"),
        ({"tile": "512"}, "tile: expected int, got '512'"),
        ({"tile": 512.5}, "tile: expected int, got 512.5"),
        ({"device": "gpu"}, "device 'gpu' is none: give cpu, cuda"),
        ({"device": 1.5}, "device 1.5 is none"),
        ({"device": "cuda:99"}, "there is no device cuda:99 here"),
    ],
)
def test_options_are_refused_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(RequestError, match=message):
        unclip.load(tmp_path / "nowhere", **options)


def test_tiles_of_any_library(folder):
    assert unclip.load(folder, device="cpu", tile=np.int64(64)).parts.tile == 64  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions": "a red apple"}, "captions: expected a list, got 'a red apple'"),
        ({"captions": ["a", 5]}, r"captions\[1\]: expected str"),
        ({"captions": []}, "there are no captions"),
        ({"captions": ["a", " "]}, "the prompt is empty"),
        ({"seed": "1"}, "seed: expected int, got '1'"),
        ({"seed": -1}, "seed is -1"),
        ({"size": [1, 2, 3]}, "size"),
        ({"precision": ["int8"]}, "the precision"),
    ],
)
def test_calibration_is_refused_before_anything_is_read(tmp_path, options, message):
    """A caption that is no list was calibrated letter by letter."""
    with pytest.raises(RequestError, match=message):
        accelerate(tmp_path / "nowhere", **options)


def test_a_copy_has_the_same_adapters(folder, adapters, tmp_path):
    import copy

    own = tmp_path / "own"
    shutil.copytree(adapters[0], own)
    model = unclip.load(folder, device="cpu", adapters={own: np.float32(0.5)})
    assert copy.deepcopy(model).digest == model.digest
