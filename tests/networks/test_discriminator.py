"""The patch discriminator: shape, patch size, losses by hand, and the weight that balances two gradients."""

import pytest
import torch
from torch import nn

from unclip.networks.discriminator import (
    DiscriminatorConfig,
    PatchDiscriminator,
    adaptive_weight,
    frozen,
    hinge,
)


def test_latent_diffusion_s_size():
    """NLayerDiscriminator of taming-transformers: 64 channels, 3 layers, batch norms, no bias before a norm."""
    network = PatchDiscriminator(DiscriminatorConfig(norm="batch"))
    convolutions = 64 * 3 * 16 + 64 + 128 * 64 * 16 + 256 * 128 * 16 + 512 * 256 * 16 + 512 * 16 + 1
    norms = 2 * (128 + 256 + 512)
    assert sum(parameter.numel() for parameter in network.parameters()) == convolutions + norms == 2_765_633
    assert network(torch.randn(1, 3, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_sees_its_patch(layers, patch):
    network = PatchDiscriminator(DiscriminatorConfig(channels=4, layers=layers, groups=2)).double()
    for index, module in enumerate(network.layers):
        if isinstance(module, nn.GroupNorm):
            network.layers[index] = nn.Identity()
    pictures = torch.randn(1, 3, 96, 96, dtype=torch.float64, requires_grad=True)
    scores = network(pictures)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert pictures.grad is not None
    seen = pictures.grad.abs().sum((0, 1))
    assert ((seen > 0).any(0).sum().item(), (seen > 0).any(1).sum().item()) == (patch, patch)


def test_small_pictures_are_refused():
    network = PatchDiscriminator(DiscriminatorConfig(channels=4, layers=3, groups=2))
    assert network(torch.zeros(1, 3, network.smallest, network.smallest)).numel() > 0
    with pytest.raises(ValueError, match=r"at least 24 pixels a side, got 23x23: set discriminator\.layers"):
        network(torch.zeros(1, 3, 23, 23))


def test_frozen_passes_gradients_to_the_input_alone():
    network = PatchDiscriminator(DiscriminatorConfig(channels=4, layers=1, groups=2))
    pictures = torch.randn(1, 3, 16, 16, requires_grad=True)
    with frozen(network):
        loss = -network(pictures).mean()
    loss.backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_hinge_by_hand():
    real, drawn = torch.tensor([[[[2.0, 0.5]]]]), torch.tensor([[[[-3.0, 0.0]]]])
    assert hinge(real, drawn).item() == pytest.approx(0.5 * ((0 + 0.5) / 2 + (0 + 1) / 2))


def test_the_adaptive_weight_is_the_ratio_of_gradients_by_finite_differences():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1).double()
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)

    def losses(weight):
        out = nn.functional.conv2d(x, weight, layer.bias, padding=1)
        return (out - 1).abs().mean(), -(out.square() * 0.3).mean()

    found = adaptive_weight(*losses(layer.weight), layer.weight)
    numeric = torch.zeros(2, layer.weight.numel(), dtype=torch.float64)
    for index in range(layer.weight.numel()):
        change = torch.zeros(layer.weight.numel(), dtype=torch.float64)
        change[index] = 1e-6
        change = change.reshape(layer.weight.shape)
        with torch.no_grad():
            up, down = losses(layer.weight + change), losses(layer.weight - change)
        numeric[:, index] = torch.stack([(a - b) / 2e-6 for a, b in zip(up, down)])
    expected = numeric[0].norm() / (numeric[1].norm() + 1e-4)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert not found.requires_grad


def test_the_adaptive_weight_is_bounded():
    weight = nn.Parameter(torch.ones(3))
    assert adaptive_weight(1e9 * weight.sum(), 0 * weight.sum(), weight).item() == 1e4
