"""Convolutions with fewer products: the direct convolution's answers to rounding, and where they are taken."""

import threading

import pytest
import torch
from torch import nn

from unclip.nn import winograd
from unclip.nn.packed import EitherConv2d, PackedConv2d, can_pack, packed_convolution
from unclip.nn.winograd import Widths, WinogradConv2d, suits

pytestmark = pytest.mark.skipif(not can_pack(torch.float32), reason="this build of torch has no oneDNN")


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def exact(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    weight, bias = layer.weight.double(), None if layer.bias is None else layer.bias.double()
    return nn.functional.conv2d(x.double(), weight, bias, padding=1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("block", [1, 5, 128])
@pytest.mark.parametrize(
    ("batch", "channels", "made", "height", "width"),
    [(1, 64, 64, 16, 16), (2, 24, 40, 21, 34), (3, 40, 24, 8, 12), (1, 16, 16, 3, 1), (2, 8, 8, 33, 70)],
)
def test_the_answers_are_the_direct_ones_to_rounding(
    monkeypatch, block, batch, channels, made, height, width
):
    monkeypatch.setattr(winograd, "BLOCK", block)
    layer, x = nn.Conv2d(channels, made, 3, padding=1), maps(batch, channels, height, width)
    fewer, expected = WinogradConv2d(layer), exact(layer, x)
    answer = fewer(x)
    assert answer.shape == expected.shape
    assert (answer - expected).abs().max() < 1e-4 * expected.std()
    shift, plus = torch.randn(batch, made), maps(batch, made, height, width)
    with_both = fewer(x, plus=plus, shift=shift)
    assert (with_both - (expected + shift[:, :, None, None] + plus)).abs().max() < 1e-4 * expected.std()


def test_a_layer_without_bias():
    layer, x = nn.Conv2d(16, 16, 3, padding=1, bias=False), maps(1, 16, 16, 16)
    assert (WinogradConv2d(layer)(x) - exact(layer, x)).abs().max() < 1e-4


def test_memory_that_is_used_again_changes_nothing():
    layers = [nn.Conv2d(channels, 16, 3, padding=1) for channels in (8, 48)]
    small, large = (WinogradConv2d(layer) for layer in layers)
    x, y = maps(1, 8, 20, 20), maps(2, 48, 40, 40)
    first = small(x)
    with torch.inference_mode():
        other = large(y)
    assert torch.equal(small(x), first), "in no inference mode, after one"
    found = []

    def elsewhere() -> None:
        found.append(large(y))

    threads = [threading.Thread(target=elsewhere) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(one, other) for one in found)


@pytest.mark.parametrize(
    ("channels", "height", "width", "taken"),
    [
        (640, 16, 16, True), (639, 16, 16, False), (640, 15, 64, False), (256, 32, 40, True), (256, 31, 40, False),
        (192, 64, 64, True), (191, 128, 128, False), (2000, 8, 8, False),
    ],
)  # fmt: skip
def test_widths_are_by_the_shorter_side(channels, height, width, taken):
    assert Widths(640, 256, 192).take(channels, height, width) is taken
    assert not Widths(0, 0, 0).take(channels, height, width)


@pytest.mark.parametrize(
    ("layer", "fits"),
    [
        (nn.Conv2d(8, 8, 3, padding=1), True), (nn.Conv2d(8, 8, 3), False), (nn.Conv2d(8, 8, 1), False),
        (nn.Conv2d(8, 8, 3, padding=1, stride=2), False), (nn.Conv2d(8, 8, 3, padding=1, groups=2), False),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2), False), (nn.Conv2d(8, 8, 3, padding="same"), False),
        (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), False), (nn.Linear(8, 8), False),
    ],
)  # fmt: skip
def test_what_suits(layer, fits):
    assert suits(layer) is fits


def test_a_layer_takes_either_way_by_the_map():
    layer = nn.Conv2d(16, 24, 3, padding=1)
    either = packed_convolution(layer, torch.float32, Widths(0, 16, 0))
    assert isinstance(either, EitherConv2d)
    for side, kind in ((16, PackedConv2d), (32, WinogradConv2d), (64, PackedConv2d)):
        x, same = maps(1, 16, side, side), kind(layer)
        if isinstance(same, PackedConv2d):
            same = PackedConv2d(layer, torch.float32)
        assert torch.equal(either(x), same(x))


@pytest.mark.parametrize(
    ("dtype", "widths"),
    [(torch.float32, None), (torch.float32, Widths(0, 0, 0)), (torch.float32, Widths(32, 0, 32))],
)
def test_narrow_layers_are_direct(dtype, widths):
    assert type(packed_convolution(nn.Conv2d(16, 64, 3, padding=1), dtype, widths)) is PackedConv2d


@pytest.mark.skipif(not can_pack(), reason="no bfloat16 kernels")
def test_bfloat16_is_direct():
    layer = nn.Conv2d(16, 16, 3, padding=1)
    assert type(packed_convolution(layer, torch.bfloat16, Widths(1, 1, 1))) is PackedConv2d
