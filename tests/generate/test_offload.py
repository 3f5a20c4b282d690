"""With `offload` only the part at work has its weights in memory, and pictures are the same."""

import contextlib
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unclip
from unclip.formats.opened import open_model
from unclip.generate.model import Model
from unclip.generate.offload import load_in_turns, without_weights
from unclip.generate.parts import Parts
from unclip.networks.inference import matrices
from unclip.networks.prior_diffusion import DiffusionPrior
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerConfig
from unclip.nn.packed import PackedConv2d, PackedLinear


def pixels(model: Model, **given) -> np.ndarray:
    (picture,) = model.generate("a red apple", seed=3, **given)
    return np.asarray(picture.image)


def holds(part: nn.Module) -> bool:
    """Whether a layer of it that multiplies has its weights; packed ones are no parameters."""
    kept, packed = matrices(part), (PackedConv2d, PackedLinear)
    return any(not weight.is_meta for name, weight in part.named_parameters() if name in kept) or any(
        isinstance(module, packed) for module in part.modules()
    )


@pytest.fixture
def alive(monkeypatch) -> Callable[[], set[str]]:
    """`alive()`: names of the parts whose networks exist and hold their weights, among those lent since."""
    lent: dict[str, list[weakref.ref[nn.Module]]] = {}
    lend = Parts.lend

    @contextlib.contextmanager
    def spy(self: Parts, name: str, kind: type[nn.Module], **options: Any) -> Iterator[nn.Module]:
        with lend(self, name, kind, **options) as network:
            lent.setdefault(name, []).append(weakref.ref(network))
            yield network

    monkeypatch.setattr(Parts, "lend", spy)

    def found() -> set[str]:
        networks = [(name, one()) for name, references in lent.items() for one in references]
        return {name for name, network in networks if network is not None and holds(network)}

    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_pictures_with_one_part_at_a_time(tiny_folder, alive, dtype):
    model = unclip.load(tiny_folder, device="cpu", dtype=dtype, offload=True)
    seen = []
    actual = pixels(model, on_progress=lambda event: seen.append((event.stage, alive())))
    assert {stage for stage, _ in seen} == {"prior", "decoder", "upsampler"}
    assert all(held == {stage} for stage, held in seen)
    assert alive() == set()
    assert model.parts._networks == {}
    whole = unclip.load(tiny_folder, device="cpu", dtype=dtype)
    assert np.array_equal(actual, pixels(whole))
    assert alive() == {"clip", "prior", "decoder", "upsampler"}


def test_manipulations_too(tiny_folder, drawing):
    whole = unclip.load(tiny_folder, device="cpu")
    model = unclip.load(tiny_folder, device="cpu", offload=True)
    for act in (
        lambda one: one.vary(drawing, n=1, seed=1)[0],
        lambda one: one.reconstruct(drawing, seed=1),
        lambda one: one.edit(drawing, (4, 4, 20, 20), "a blue cat", seed=1)[0],
        lambda one: one.upscale(drawing, seed=1),
    ):
        assert np.array_equal(np.asarray(act(model).image), np.asarray(act(whole).image))


def test_without_weights_a_part_is_a_shell_with_its_tables(tiny_folder):
    opened = open_model(tiny_folder)
    prior = without_weights(opened.parts["prior"].load)
    assert isinstance(prior, DiffusionPrior)
    assert not holds(prior)
    assert not prior.embedding_std.is_meta


def test_an_upsampler_with_a_network_for_the_last_step_holds_one_at_a_time(tiny):
    torch.manual_seed(0)
    net = UnetConfig(in_channels=6, channels=8, multiples=(1,), blocks=1, norm="rms")
    config = UpsamplerConfig(net=net, process=tiny.flow, low_size=8, high_size=16, last_step=True)
    whole = Upsampler(config).eval().requires_grad_(False)
    held, loaded = [], []

    def load(only: str = "") -> nn.Module:
        loaded.append(only)
        fresh = Upsampler(config).requires_grad_(False)
        fresh.load_state_dict(whole.state_dict())
        return fresh

    def prepare(network: nn.Module) -> nn.Module:
        held.append(weakref.ref(network))
        return network.eval()

    split = load_in_turns(load, prepare)
    assert isinstance(split, Upsampler)
    x, label, low = torch.randn(1, 3, 16, 16), torch.tensor([500.0]), torch.zeros(1, 3, 8, 8)
    for name in ("net", "net", "last_net", "net"):
        made = split.predict(getattr(split, name), x, label, split.condition(low))
        expected = whole.predict(getattr(whole, name), x, label, whole.condition(low))
        assert torch.equal(made, expected)
        assert sum(one() is not None for one in held) == 1
    assert [name for name in loaded if name.endswith("net.")] == ["net.", "last_net.", "net."]


# In a process of its own: one that has freed memory before finds room there, and gives nothing back.
FREED = """
from pathlib import Path
import torch
from unclip.generate.offload import returned_when_freed

def resident():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

def given_back():
    blocks = [torch.ones(6 << 18) for _ in range(40)]
    full = resident()
    del blocks[::2]
    return full - resident()

with returned_when_freed():
    inside = given_back()
print(inside, given_back())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_what_is_freed_between_others_goes_back():
    """Of 120 MiB in every other one of 40 blocks; after it, what glibc does in a process that has freed large blocks."""
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    inside, after = map(float, done.stdout.split())
    assert inside > 75
    assert after < 60
