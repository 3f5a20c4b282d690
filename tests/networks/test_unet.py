"""The U-Net: its switches, its precision, its errors."""

import json
from dataclasses import replace

import pytest
import torch

from unclip import config as configs
from unclip.networks.unet import Unet, UnetConfig
from unclip.nn.dropout import seed_dropout
from unclip.rng import Noise

SWITCHES = {
    "plain": UnetConfig(channels=8, multiples=(1, 2), blocks=1, groups=4),
    "glide": UnetConfig(
        channels=8,
        multiples=(1, 2, 3),
        blocks=2,
        groups=4,
        attention_levels=(1, 2),
        head_channels=4,
        context_width=6,
        vector_width=32,
        out_channels=6,
    ),
    "projected vector": UnetConfig(channels=8, multiples=(1, 2), blocks=1, groups=4, vector_width=5),
    "additive": UnetConfig(channels=8, multiples=(1, 2), blocks=1, groups=4, scale_shift_norm=False),
    "convolutions": UnetConfig(channels=8, multiples=(1, 2, 2), blocks=1, groups=4, resample="conv"),
    "cheap": UnetConfig(in_channels=6, channels=8, multiples=(1, 1), blocks=1, norm="rms", patch=4),
    "dropout": UnetConfig(channels=8, multiples=(1,), blocks=1, groups=4, dropout=0.1),
}


def build(config: UnetConfig) -> Unet:
    """A net away from its start, where the last layers are zero."""
    net = Unet(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.1 + ("norm" in name and name.endswith("weight")))
    return net


def arguments(config: UnetConfig, size: int = 16, batch: int = 2) -> tuple:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return (
        draw(batch, config.in_channels, size, size),
        torch.linspace(0.1, 0.9, batch),
        None if config.vector_width is None else draw(batch, config.vector_width),
        None if config.context_width is None else draw(batch, 3, config.context_width),
    )


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_keeps_shapes_and_reaches_every_parameter(name):
    config = SWITCHES[name]
    net, inputs = build(config), arguments(config)
    seed_dropout(net, Noise([1, 2]))
    prediction = net(*inputs)
    assert prediction.shape == (2, config.out_channels, 16, 16)
    prediction.square().sum().backward()
    without = [name for name, parameter in net.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", SWITCHES)
def test_a_config_survives_json(name):
    config = SWITCHES[name]
    assert configs.from_dict(UnetConfig, json.loads(json.dumps(configs.to_dict(config)))) == config


@pytest.mark.parametrize("name", SWITCHES)
def test_a_new_net_predicts_zero(name):
    config = SWITCHES[name]
    net = Unet(config)
    seed_dropout(net, Noise([1, 2]))
    assert not net(*arguments(config)).any()


@pytest.mark.parametrize("name", ["glide", "cheap"])
@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_bfloat16_inside_and_float32_outside(name, way):
    config = SWITCHES[name]
    net, inputs = build(config).eval(), arguments(config)
    exact = net(*inputs)
    if way == "weights":
        net.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "autocast"):
        rounded = net(*inputs)
    assert rounded.dtype == torch.float32
    difference = (rounded - exact).abs().max() / exact.abs().max()
    assert 0 < difference < 0.03


def test_the_last_convolution_is_not_rounded():
    """What leaves it has more distinct values than bfloat16 has between its extremes."""
    net, inputs = build(SWITCHES["plain"]), arguments(SWITCHES["plain"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = net(*inputs)
    assert not torch.equal(prediction, prediction.bfloat16().float())


@pytest.mark.parametrize("name", ["glide", "cheap"])
def test_channels_last_gives_the_same_prediction(name):
    config = SWITCHES[name]
    net, (x, *rest) = build(config), arguments(config)
    expected = net(x, *rest)
    net = net.to(memory_format=torch.channels_last)
    actual = net(x.contiguous(memory_format=torch.channels_last), *rest)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("argument", ["label", "vector", "context"])
def test_each_condition_matters(argument):
    config = SWITCHES["glide"]
    net, (x, label, vector, context) = build(config), arguments(config)
    changed = {"label": label, "vector": vector, "context": context}
    changed[argument] = changed[argument] + 1
    assert not torch.allclose(net(x, label, vector, context), net(x, **changed))


def test_a_sample_does_not_see_its_batch():
    config = SWITCHES["glide"]
    net, inputs = build(config), arguments(config, batch=3)
    torch.testing.assert_close(net(*inputs)[1:2], net(*(tensor[1:2] for tensor in inputs)))


def test_context_mask_hides_tokens():
    config = SWITCHES["glide"]
    net, (x, label, vector, context) = build(config), arguments(config)
    mask = torch.tensor([[True, True, False]]).expand(2, 3)
    hidden = net(x, label, vector, context, mask)
    torch.testing.assert_close(hidden, net(x, label, vector, context[:, :2]))


@pytest.mark.parametrize("norm", ["rms", "group"])
def test_pixel_norm_and_convolutions_make_pieces_equal_to_the_whole(norm):
    """Beyond the receptive field (136 pixels) from where it was cut, a piece is predicted as in the whole picture.

    Group norms see all of a picture, so they are the control.
    """
    net, (x, label, *_) = (
        build(replace(SWITCHES["cheap"], norm=norm, groups=4)),
        arguments(SWITCHES["cheap"], 256, 1),
    )
    whole, piece = net(x, label), net(x[..., :192], label)
    assert torch.allclose(piece[..., :48], whole[..., :48], atol=1e-5) == (norm == "rms")


def test_attention_is_where_the_config_says():
    net = Unet(SWITCHES["glide"])
    assert [len(level.attentions) for level in net.down] == [0, 2, 2]
    assert [len(level.attentions) for level in net.up] == [3, 3, 0]
    assert net.middle.attention is not None
    assert Unet(SWITCHES["plain"]).middle.attention is None


def test_rectangles_are_allowed_and_odd_sizes_are_not():
    config = SWITCHES["cheap"]
    net = build(config)
    label = torch.zeros(1)
    assert net(torch.zeros(1, 6, 16, 24), label).shape == (1, 3, 16, 24)
    with pytest.raises(ValueError, match="16x20 does not fit; both sides must be multiples of 8"):
        net(torch.zeros(1, 6, 16, 20), label)


def test_conditions_must_be_those_of_the_config():
    x, label = torch.zeros(1, 3, 16, 16), torch.zeros(1)
    with pytest.raises(ValueError, match="is None, but a vector was given"):
        Unet(SWITCHES["plain"])(x, label, torch.zeros(1, 32))
    with pytest.raises(ValueError, match="is 5, but no vector was given"):
        Unet(SWITCHES["projected vector"])(x, label)
    with pytest.raises(ValueError, match="set attention_levels"):
        Unet(SWITCHES["plain"])(x, label, context=torch.zeros(1, 3, 6))


def test_impossible_configs_are_refused():
    with pytest.raises(ValueError, match="names level 2; the levels are 0 to 1"):
        UnetConfig(multiples=(1, 2), attention_levels=(2,))
    with pytest.raises(ValueError, match="even"):
        UnetConfig(channels=9)


def test_a_state_dict_moves_to_another_net():
    config = SWITCHES["glide"]
    net, other, inputs = build(config), Unet(config), arguments(config)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(*inputs), other(*inputs))
