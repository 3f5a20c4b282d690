"""With `offload` only the part at work has its weights in memory, and pictures are the same."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unclip
from unclip.generate.offload import returned_when_freed
from unclip.generate.system import System
from unclip.networks.inference import matrices
from unclip.networks.prior_diffusion import DiffusionPrior
from unclip.nn.packed import PackedConv2d, PackedLinear


def pixels(system: System, **given) -> np.ndarray:
    (picture,) = system.generate("a red apple", seed=3, **given)
    return np.asarray(picture.image)


def holds(part: nn.Module) -> bool:
    """Whether a layer of it that multiplies has its weights; packed ones are no parameters."""
    kept, packed = matrices(part), (PackedConv2d, PackedLinear)
    return any(not weight.is_meta for name, weight in part.named_parameters() if name in kept) or any(
        isinstance(module, packed) for module in part.modules()
    )


def in_memory(system: System) -> set[str]:
    """The parts that hold their weights."""
    return {name for name, part in system._parts.items() if holds(part)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_pictures_with_one_part_at_a_time(tiny_folder, dtype):
    whole = unclip.load(tiny_folder, device="cpu", dtype=dtype)
    system = unclip.load(tiny_folder, device="cpu", dtype=dtype, offload=True)
    seen = []
    actual = pixels(system, callback=lambda event: seen.append((event.stage, in_memory(system))))
    assert np.array_equal(actual, pixels(whole))
    assert {stage for stage, _ in seen} == {"prior", "decoder", "upsampler"}
    assert all(held == {stage} for stage, held in seen)
    assert in_memory(system) <= {"clip"}


def test_manipulations_too(tiny_folder, drawing):
    whole = unclip.load(tiny_folder, device="cpu")
    system = unclip.load(tiny_folder, device="cpu", offload=True)
    for act in (
        lambda one: one.vary(drawing, n=1, seed=1)[0],
        lambda one: one.reconstruct(drawing, seed=1),
        lambda one: one.edit(drawing, (4, 4, 20, 20), "a blue cat", seed=1)[0],
        lambda one: one.upscale(drawing, seed=1),
    ):
        assert np.array_equal(np.asarray(act(system).image), np.asarray(act(whole).image))


def test_a_part_outside_of_its_work_is_a_shell_with_its_tables(tiny_folder):
    system = unclip.load(tiny_folder, device="cpu", offload=True)
    pixels(system)
    prior = system.prior
    assert isinstance(prior, DiffusionPrior)
    assert not holds(prior)
    assert not prior.embedding_std.is_meta
    assert system.sizes == [16, 32]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_is_freed_between_others_goes_back():
    def resident() -> float:
        (line,) = (
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
        )
        return int(line.split()[1]) / 1024

    def given_back() -> float:
        """MiB of 120 in every other one of 40 blocks."""
        blocks = [torch.ones(6 << 18) for _ in range(40)]
        full = resident()
        del blocks[::2]
        return full - resident()

    with returned_when_freed():
        # Not 120 always: a few blocks find room in what was freed before this test.
        assert given_back() > 75
    # After it, what glibc does in a process that has freed large blocks.
    assert given_back() < 60
