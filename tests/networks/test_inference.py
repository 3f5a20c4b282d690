"""Networks made ready for use: what is kept in half precision, and that it costs no more than its rounding."""

from dataclasses import replace

import pytest
import torch

from unclip.networks.inference import matrices, prepack, settle, suits_channels_last
from unclip.networks.unet import Unet, UnetConfig
from unclip.nn.fused import FusedResBlock
from unclip.nn.packed import PackedConv2d, PackedLinear, PackedResBlock, can_pack

CONFIG = UnetConfig(
    channels=32,
    multiples=(1, 2),
    blocks=1,
    attention_levels=(1,),
    head_channels=32,
    context_width=8,
    vector_width=24,
)


@pytest.fixture
def net() -> Unet:
    torch.manual_seed(0)
    net = Unet(CONFIG)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    return net.eval()


def half(net: Unet) -> Unet:
    kept = matrices(net)
    for name, parameter in net.named_parameters():
        if name in kept:
            parameter.data = parameter.data.bfloat16()
    return net


def test_all_that_multiplies_but_the_ends(net):
    kept = matrices(net)
    weights = dict(net.named_parameters())
    assert {"down.0.resblocks.0.conv1.weight", "middle.attention.qkv.weight", "label.linear_1.weight"} < kept
    assert all(weights[name].ndim > 1 for name in kept)
    assert {name for name, weight in weights.items() if weight.ndim > 1} - kept == {
        "entrance.weight",
        "exit.weight",
    }


@pytest.mark.skipif(not can_pack(), reason="no bfloat16 kernels")
@torch.inference_mode()
def test_a_packed_net_differs_by_rounding(net):
    given = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 700.0]), torch.randn(2, 24)
    context, mask = torch.randn(2, 5, 8), torch.tensor([[True] * 5, [True, False, False, True, True]])
    expected = net(*given, context, mask)
    with torch.autocast("cpu", torch.bfloat16):
        plain = half(net)(*given, context, mask)
        prepack(net)
        packed = net(*given, context, mask)
        read = net(*given, net.read(context), mask)
    assert not any(type(module) in (torch.nn.Linear,) for module in net.modules())
    assert {PackedConv2d, PackedLinear, PackedResBlock} < {type(module) for module in net.modules()}
    assert packed.dtype == torch.float32
    assert torch.equal(packed, read)
    scale = expected.norm()
    assert (packed - expected).norm() < 1.2 * (plain - expected).norm()
    assert (packed - expected).norm() < 0.02 * scale


@pytest.mark.skipif(not can_pack(torch.float32), reason="no kernels")
@torch.inference_mode()
def test_float32_layers_are_packed_if_asked_and_differ_by_rounding(net):
    given = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 700.0]), torch.randn(2, 24)
    context, mask = torch.randn(2, 5, 8), torch.tensor([[True] * 5, [True, False, False, True, True]])
    expected = net(*given, context, mask)
    ends = net.entrance, net.exit
    prepack(net, float32=True)
    packed = net(*given, net.read(context), mask)
    assert {PackedConv2d, PackedLinear, PackedResBlock} < {type(module) for module in net.modules()}
    assert (net.entrance, net.exit) == ends
    assert (packed - expected).abs().max() < 1e-5 * expected.abs().max()


def test_what_is_float32_is_left_alone(net):
    before = {name: type(module) for name, module in net.named_modules()}
    prepack(net)
    assert {name: type(module) for name, module in net.named_modules()} == before


@torch.inference_mode()
def test_a_settled_net_needs_no_autocast_and_differs_by_rounding(net):
    given = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 700.0]), torch.randn(2, 24)
    context, mask = torch.randn(2, 5, 8), torch.tensor([[True] * 5, [True, False, False, True, True]])
    expected = net(*given, context, mask)
    with torch.autocast("cpu", torch.bfloat16):
        plain = half(net)(*given, context, mask)
        settle(net)
        settled = net(*given, context, mask)
    assert torch.equal(settled, net(*given, context, mask))
    assert settled.dtype == net.exit.weight.dtype == torch.float32
    others = {name: one.dtype for name, one in net.named_parameters() if not name.startswith("exit.")}
    assert set(others.values()) == {torch.bfloat16}
    assert FusedResBlock in {type(module) for module in net.modules()}
    scale = expected.norm()
    assert (settled - expected).norm() < 1.5 * (plain - expected).norm()
    assert (settled - expected).norm() < 0.03 * scale


def test_a_float32_net_is_not_settled(net):
    before = {name: type(module) for name, module in net.named_modules()}
    settle(net)
    assert {name: type(module) for name, module in net.named_modules()} == before
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_channels_are_innermost_but_for_group_norms_on_cuda(net):
    rms = Unet(replace(CONFIG, norm="rms"))
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [suits_channels_last(one, cpu) for one in (net, rms, torch.nn.Linear(1, 1))] == [True, True, False]
    assert [suits_channels_last(one, cuda) for one in (net, rms)] == [False, True]
