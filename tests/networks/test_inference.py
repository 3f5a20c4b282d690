"""Networks made ready for use: what is kept in half precision, and that it costs no more than its rounding."""

import pytest
import torch

from unclip.networks.inference import matrices, prepack
from unclip.networks.unet import Unet, UnetConfig
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


def test_what_is_float32_is_left_alone(net):
    before = {name: type(module) for name, module in net.named_modules()}
    prepack(net)
    assert {name: type(module) for name, module in net.named_modules()} == before
