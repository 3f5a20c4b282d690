"""What a GPU's steps do differently, checked on a CPU: it must change how quickly, not what is learned."""

import copy

import numpy as np
import pytest
import torch

from unclip.data.order import Order
from unclip.networks.patch_transformer import ModulatedBlock, PatchTransformerConfig
from unclip.rng import Noise
from unclip.train.begin import on_smaller_patches
from unclip.train.optim import StackedMuon, stacked_step
from unclip.train.source import shifted, squares_at
from unclip.train.task import ByBlock, build_task


def tensors(batch) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("stage", ["clip", "prior", "decoder"])
def test_captions_chosen_on_the_device_give_the_same_batch(small, stage):
    batches = build_task(small(stage), torch.device("cpu")).batches
    numbers = np.arange(3, 11)
    expected = tensors(batches.batch(numbers, Noise(numbers.tolist())))
    batches.train.read_captions(batches.tokenizer if stage == "clip" else batches.clip.tokenizer)
    found = tensors(batches.batch(numbers, Noise(numbers.tolist())))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_embeddings_lean_towards_others_and_keep_their_length(small):
    plain, leaning = (
        build_task(small("decoder", *more), torch.device("cpu")).batches
        for more in ((), ("embedding_noise=0.3",))
    )
    numbers = np.arange(8)
    before = plain.batch(numbers, Noise(numbers.tolist())).image_embedding
    after = leaning.batch(numbers, Noise(numbers.tolist())).image_embedding
    assert not torch.equal(before, after)
    torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1))
    assert torch.nn.functional.cosine_similarity(after, before).min() > 0.8


def test_stacked_muon_takes_the_steps_of_torchs_own():
    draw = torch.Generator().manual_seed(0)
    shapes = [(24, 8), (8, 8), (8, 24), (24, 8)]
    first = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
    second = copy.deepcopy(first)
    settings = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    theirs, ours = torch.optim.Muon(first, **settings), StackedMuon(second, **settings)
    for _ in range(3):
        for one, other in zip(first, second):
            one.grad = torch.randn(one.shape, generator=draw)
            other.grad = one.grad.clone()
        theirs.step()
        (group,) = ours.param_groups
        lists = [], [], []
        ours._init_group(group, *lists)
        with torch.no_grad():
            stacked_step(*lists, group)
    for one, other in zip(first, second):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-3)


def test_blocks_compiled_within_the_call_are_the_blocks(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    config = PatchTransformerConfig(size=16, patch=8, width=64, layers=2)
    net = torch.nn.Sequential(*(ModulatedBlock(config) for _ in range(2)))
    calls = []

    def network(x: torch.Tensor) -> torch.Tensor:
        for block in net:
            calls.append("forward" in vars(block))
            x = block(x, torch.ones(1, 6, 64), None)
        return x

    x = torch.randn(1, 4, 64)
    expected = network(x)
    network_of = torch.nn.Module()
    network_of.blocks, network_of.forward = net, network
    assert torch.equal(ByBlock(network_of)(x), expected)
    assert calls == [False, False, True, True]
    assert not any("forward" in vars(block) for block in net)


def test_a_decoder_on_smaller_patches_begins_with_the_same_blocks():
    width, old, new = 8, 8, 4
    weights = {
        "net.patches.weight": torch.randn(width, 7 * old**2),
        "net.out.weight": torch.randn(3 * old**2, width),
        "net.out.bias": torch.randn(3 * old**2),
        "net.positions": torch.randn(4, width),
        "net.blocks.0.offset": torch.randn(6, width),
    }
    made = on_smaller_patches(weights, old, new)
    assert made["net.patches.weight"].shape == (width, 7 * new**2)
    assert made["net.out.weight"].shape == (3 * new**2, width)
    assert made["net.positions"].shape == (16, width)
    assert made["net.blocks.0.offset"] is weights["net.blocks.0.offset"]
    # A flat patch is read and written as before.
    torch.testing.assert_close(made["net.patches.weight"].sum(1), weights["net.patches.weight"].sum(1))
    torch.testing.assert_close(made["net.out.bias"].mean(), weights["net.out.bias"].mean())


def test_orders_give_the_same_samples_wherever_one_looks_first():
    weights = np.random.default_rng(0).uniform(0.05, 1, 40)
    whole = Order(40, 3, weights).indices(0, 400)
    order = Order(40, 3, weights)
    for start in (0, 7, 14, 300, 20, 393):
        assert np.array_equal(order.indices(start, start + 7), whole[start : start + 7])


def test_squares_and_shifts_are_gathered_as_they_are_cut():
    pixels = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    which, corners = torch.tensor([2, 0]), torch.tensor([[1, 5], [0, 8]])
    cut = torch.stack([pixels[2, :, 1:9, 5:13], pixels[0, :, 0:8, 8:16]])
    assert torch.equal(squares_at(pixels, which, corners, 8), cut)
    moved = shifted(pixels, torch.tensor([[1, 0], [0, -2], [0, 0]]), 3)
    assert torch.equal(moved[0, :, 1:], pixels[0, :, :-1])
    assert torch.equal(moved[1, :, :, :-2], pixels[1, :, :, 2:])
    assert (moved[0, :, 0] == 255).all()
