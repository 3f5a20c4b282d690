"""Sampling of the diffusion prior: guidance, candidates, independence of the batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

from unclip.diffusion.denoiser import NoiseSource
from unclip.diffusion.losses import LossConfig, UniformTime, diffusion_loss
from unclip.diffusion.parametrization import Preconditioned
from unclip.diffusion.samplers import sample
from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig, PriorCondition
from unclip.rng import Noise
from unclip.stages.prior import choose, sample_diffusion_prior
from unclip.stages.sampling import DEFAULTS

CONFIG = DiffusionPriorConfig(embedding=6, context=4, text_width=5, width=16, layers=2, heads=2)


def build() -> DiffusionPrior:
    torch.manual_seed(0)
    prior = DiffusionPrior(CONFIG).eval()
    prior.embedding_mean.copy_(torch.linspace(-1, 1, 6))
    prior.embedding_std.copy_(torch.linspace(0.5, 2, 6))
    return prior


def captions(batch: int = 3) -> PriorCondition:
    generator = torch.Generator().manual_seed(1)
    return PriorCondition(
        text_embedding=torch.randn(batch, 6, generator=generator),
        text_states=torch.randn(batch, 4, 5, generator=generator),
        text_mask=torch.arange(4) < torch.tensor([[3], [2], [4]])[:batch],
        keep=torch.ones(batch, dtype=torch.bool),
    )


def drawn(
    prior: DiffusionPrior,
    condition: PriorCondition,
    noise: NoiseSource,
    *,
    candidates: int = 1,
    **settings: Any,
) -> torch.Tensor:
    """Embeddings in CLIP's scale, the nearest of `candidates` per caption."""
    steps = sample_diffusion_prior(prior, condition.repeat(candidates), noise, **settings)
    return choose(prior.unstandardise(sample(steps)), condition.text_embedding)


def noise(batch: int = 3, candidates: int = 1) -> Noise:
    return Noise(range(10, 10 + batch * candidates))


def test_of_the_candidates_the_one_nearest_to_the_caption_is_kept():
    prior, condition = build(), captions()
    kept = drawn(prior, condition, noise(3, 4), candidates=4, steps=3)
    steps = sample_diffusion_prior(prior, condition.repeat(4), noise(3, 4), steps=3)
    every = prior.unstandardise(sample(steps)).reshape(3, 4, 6)
    for row in range(3):
        cosines = cosine_similarity(every[row], condition.text_embedding[row : row + 1], dim=1)
        assert torch.equal(kept[row], every[row, cosines.argmax()])
    cosines = cosine_similarity(every, condition.text_embedding[:, None], dim=2)
    assert len({int(row.argmax()) for row in cosines}) > 1


def test_two_candidates_are_the_papers_default():
    assert DEFAULTS.prior.candidates == 2


def test_choosing_compares_directions_and_not_lengths():
    candidates = torch.tensor([[[1.0, 0.1], [9.0, 9.0]], [[0.0, 1.0], [5.0, 5.0]]])
    text = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    assert choose(candidates.flatten(0, 1), text).tolist() == [
        candidates[0, 0].tolist(),
        candidates[1, 0].tolist(),
    ]


def test_guidance_leads_from_null_through_the_condition():
    prior, condition = build(), captions()

    def estimate(given: PriorCondition, **settings: Any) -> torch.Tensor:
        # One step from pure noise gives the guided estimate of x0 itself.
        return sample(sample_diffusion_prior(prior, given, noise(), steps=1, **settings))

    cond, null = estimate(condition), estimate(condition.null())
    torch.testing.assert_close(estimate(condition, guidance=3.0), null + 3 * (cond - null))
    torch.testing.assert_close(estimate(condition, guidance=0.0), null)
    negative = replace(condition, text_embedding=-condition.text_embedding)
    away = estimate(negative)
    torch.testing.assert_close(estimate(condition, guidance=3.0, null=negative), away + 3 * (cond - away))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m"])
def test_a_sample_does_not_see_its_batch(sampler):
    prior, condition = build(), captions()
    together = drawn(prior, condition, noise(), steps=4, sampler=sampler, guidance=2.0)
    alone = captions()
    alone = PriorCondition(
        alone.text_embedding[1:2], alone.text_states[1:2], alone.text_mask[1:2], alone.keep[1:2]
    )
    single = drawn(prior, alone, Noise([11]), steps=4, sampler=sampler, guidance=2.0)
    torch.testing.assert_close(together[1:2], single, atol=1e-5, rtol=1e-5)


def test_a_trained_prior_draws_the_embedding_of_its_caption():
    """Three captions, three embeddings: training and sampling meet; the control is an untrained prior."""
    prior, condition = build(), captions()
    truth = 2 * torch.eye(6)[:3]
    torch.manual_seed(0)
    model = Preconditioned(prior, CONFIG.process.build())
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    config = LossConfig(density=UniformTime(), weight="x0")
    before = drawn(prior, condition, noise(), steps=8)
    for step in range(80):
        draws = Noise([step * 3 + row for row in range(3)])
        sigma = config.density.sigma(draws.fork("sigma").uniform(), model.process)
        loss = diffusion_loss(model, prior.standardise(truth), draws.normal(6), sigma, condition, config)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    after = drawn(prior, condition, noise(), steps=8)
    assert cosine_similarity(after, truth).min() > 0.95
    assert cosine_similarity(before, truth).min() < 0.8
