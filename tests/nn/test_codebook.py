"""Vector quantisation against a plain loop, its gradients, and the restart of unused codes."""

import pytest
import torch

from unclip.nn.codebook import nearest, perplexity, quantise, restart, use_of
from unclip.rng import Noise


@pytest.fixture
def latents():
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def codes():
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(1))


def test_nearest_codes_by_a_plain_loop(latents, codes):
    found = nearest(latents, codes)
    for b in range(2):
        for i in range(4):
            for j in range(5):
                distances = [((latents[b, :, i, j] - code) ** 2).sum().item() for code in codes]
                assert found[b, i, j].item() == distances.index(min(distances))


def test_values_losses_and_gradients(latents, codes):
    """Straight-through: d out / d latents = 1; the codebook loss moves codes alone, the commitment loss latents alone."""
    latents, codes = latents.requires_grad_(), codes.requires_grad_()
    found = quantise(latents, codes)
    chosen = codes[found.indices].permute(0, 3, 1, 2)
    torch.testing.assert_close(found.latents, chosen)
    weights = torch.randn_like(latents)
    z, c = torch.autograd.grad((found.latents * weights).sum(), (latents, codes), allow_unused=True)
    assert torch.equal(z, weights)
    assert c is None
    distance = (latents - chosen).square().mean()
    assert found.codebook_loss.item() == pytest.approx(distance.item())
    assert found.commitment_loss.item() == pytest.approx(distance.item())
    z, c = torch.autograd.grad(found.codebook_loss, (latents, codes), allow_unused=True, retain_graph=True)
    assert z is None
    expected = torch.zeros_like(codes)
    apart = 2 * (chosen - latents).permute(0, 2, 3, 1) / latents.numel()
    for index, row in zip(found.indices.flatten(), apart.reshape(-1, 3)):
        expected[index] += row.detach()
    torch.testing.assert_close(c, expected)
    z, c = torch.autograd.grad(found.commitment_loss, (latents, codes), allow_unused=True)
    assert c is None
    torch.testing.assert_close(z, (2 * (latents - chosen) / latents.numel()).detach())


def test_dead_codes_become_latents_and_others_stay(latents, codes):
    dead = ~use_of(torch.tensor([[[0, 2, 2, 6]]]), 7)
    assert dead.tolist() == [False, True, False, True, True, True, False]
    before = codes.clone()
    restart(codes, dead, latents, Noise([5, 6]))
    assert torch.equal(codes[~dead], before[~dead])
    rows = {tuple(row) for row in latents.permute(0, 2, 3, 1).reshape(-1, 3).tolist()}
    assert all(tuple(row) in rows for row in codes[dead].tolist())
    other = before.clone()
    restart(other, dead, latents, Noise([5, 99]))
    assert torch.equal(other, codes)


def test_perplexity_counts_even_use():
    assert perplexity(torch.tensor([[[0, 1, 2, 3]]]), 9).item() == pytest.approx(4)
    assert perplexity(torch.tensor([[[5, 5, 5, 5]]]), 9).item() == pytest.approx(1)
