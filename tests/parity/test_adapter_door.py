"""Adapters of peft: every option of its config is honoured or refused by name, and damage is one line."""

import dataclasses
import inspect
import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unclip.checkpoints.adapters import INERT, OPTIONS, READ, read_adapter
from unclip.errors import ModelError

peft = pytest.importorskip("peft")


class Net(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 6, bias=False), nn.Linear(6, 5, bias=False)

    def forward(self, x):
        """Output of both."""
        return self.two(self.one(x))


def saved(folder, **options):
    """A trained adapter of both layers as peft saves it, and what the network computes with it."""
    torch.manual_seed(0)
    given = {"r": 3, "lora_alpha": 2, "target_modules": ["one", "two"], "init_lora_weights": False}
    wrapped = peft.get_peft_model(Net(), peft.LoraConfig(**(given | options)))
    wrapped.save_pretrained(str(folder))
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    return x, wrapped(x).detach()


def changed(x, folder):
    """What the network computes with the adapter of a folder as it is read here."""
    torch.manual_seed(0)
    network = Net()
    with torch.no_grad():
        for layer, one in read_adapter(folder).layers.items():
            network.get_submodule(layer).weight.add_(one.change)
        return network(x)


def test_every_option_of_the_installed_class_is_listed():
    """A new version's new option fails here, until it is honoured or refused."""
    names = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert names == {*OPTIONS, *READ, *INERT}
    assert not (READ | INERT) & OPTIONS.keys()
    defaults = inspect.signature(peft.LoraConfig).parameters
    for name, values in OPTIONS.items():
        assert defaults[name].default in values, name


@pytest.mark.parametrize(
    "options",
    [
        {"rank_pattern": {"two": 2}},
        {"alpha_pattern": {"one": 7}},
        {"rank_pattern": {"one": 5}, "alpha_pattern": {"one": 7}, "use_rslora": True},
        {"init_lora_weights": "gaussian"},
        {"exclude_modules": ["two"]},
    ],
)
def test_what_is_read_computes_what_peft_computes(tmp_path, options):
    x, theirs = saved(tmp_path, **options)
    if options.get("init_lora_weights"):
        assert (changed(x, tmp_path) - theirs).abs().max() < 1e-6
        return
    assert (theirs - Net()(x)).abs().max() > 0.01
    torch.testing.assert_close(changed(x, tmp_path), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_adapters_that_change_the_model_s_own_weights_are_refused(tmp_path, kind):
    """Their factors stand beside what is left of the weights; added to the weights as they are, they give another model."""
    x, theirs = saved(tmp_path, init_lora_weights=kind)
    with pytest.raises(ModelError, match=f"init_lora_weights is '{kind}'.* merge that adapter with peft"):
        read_adapter(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "init_lora_weights": True}))
    assert (changed(x, tmp_path) - theirs).abs().max() > 0.01


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alora_invocation_tokens", [5, 6]),
        ("kasa_config", {"beta": 1e-4}),
        ("use_bdlora", {"nblocks": 2}),
        ("an_option_of_next_year", {"on": True}),
        ("lora_alpha", "16"),
        ("lora_alpha", math.nan),
        ("lora_alpha", 10**400),
        ("lora_alpha", True),
        ("alpha_pattern", ["one"]),
        ("alpha_pattern", {"(": 3}),
        ("alpha_pattern", {"one": None, "two": [3]}),
        ("peft_type", ["LORA"]),
    ],
)
def test_options_are_refused_by_name(tmp_path, name, value):
    saved(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    word = "two" if value == {"one": None, "two": [3]} else name
    with pytest.raises(ModelError, match=word) as raised:
        read_adapter(tmp_path)
    assert "\n" not in str(raised.value)


def test_the_config_within_diffusers_file_is_checked_as_well(tmp_path):
    saved(tmp_path / "peft")
    tensors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    tensors = {name.replace("base_model.model.", "unet."): value for name, value in tensors.items()}
    file = tmp_path / "pytorch_lora_weights.safetensors"
    for text, words in (
        (json.dumps({"unet.r": 3, "unet.lora_alpha": 6, "unet.use_dora": True}), "use_dora is True"),
        (json.dumps({"unet.lora_alpha": "x"}), "lora_alpha is 'x'"),
        ("[1]", "does not hold an object"),
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
    ):
        save_file(tensors, file, {"lora_adapter_metadata": text})
        with pytest.raises(ModelError, match=words):
            read_adapter(file)
    save_file(tensors, file, {"lora_adapter_metadata": json.dumps({"unet.r": 3, "unet.lora_alpha": 6})})
    assert {one.scale for one in read_adapter(file).layers.values()} == {2.0}


A, B = "one.lora_A.weight", "one.lora_B.weight"


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({A: torch.ones(3, 8), B: torch.full((6, 3), math.nan)}, f"'{B}' holds numbers that are not finite"),
        ({A: torch.full((3, 8), math.inf), B: torch.ones(6, 3)}, f"'{A}' holds numbers that are not finite"),
        ({A: torch.ones(3, 8), B: torch.ones(6, 4)}, "do not fit"),
        ({A: torch.ones(0, 8), B: torch.ones(6, 0)}, "do not fit"),
        ({A: torch.ones(8), B: torch.ones(6)}, "do not fit"),
        (
            {A: torch.ones(3, 8), B: torch.ones(6, 3), "one.alpha": torch.ones(2)},
            "alpha of 'one' is 2 numbers",
        ),
        ({}, "holds no factors"),
    ],
)
def test_damaged_factors_are_named(tmp_path, tensors, words):
    save_file(tensors, tmp_path / "one.safetensors")
    with pytest.raises(ModelError, match=words):
        read_adapter(tmp_path / "one.safetensors")


@pytest.mark.parametrize(
    "own",
    [
        "[1]",
        "nonsense",
        json.dumps({"part": ["decoder"]}),
        json.dumps({"fingerprint": [math.nan] * 8, "layer": "one"}),
        json.dumps({"fingerprint": [0.1] * 3, "layer": "one"}),
        json.dumps({"fingerprint": ["x"] * 8, "layer": 5}),
    ],
)
def test_damaged_notes_of_our_own_are_named(tmp_path, own):
    save_file({A: torch.ones(3, 8), B: torch.ones(6, 3)}, tmp_path / "one.safetensors", {"unclip": own})
    with pytest.raises(ModelError, match="damaged"):
        read_adapter(tmp_path / "one.safetensors")


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.bfloat16, torch.float64])
def test_factors_of_every_type(tmp_path, kind):
    save_file({A: torch.ones(3, 8).to(kind), B: torch.ones(6, 3).to(kind)}, tmp_path / "one.safetensors")
    (found,) = read_adapter(tmp_path / "one.safetensors").layers.values()
    assert found.change.dtype == torch.float32
    assert torch.equal(found.change, torch.full((6, 8), 3.0))
