"""The diffusion prior: its sequence, its conditions, its samples."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from unclip.diffusion.losses import LossConfig, UniformTime, diffusion_loss
from unclip.diffusion.parametrization import Preconditioned
from unclip.diffusion.samplers import sample
from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig, PriorCondition, nearest
from unclip.rng import Noise

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


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 6, generator=torch.Generator().manual_seed(2)), torch.linspace(0, 999, batch)


def test_the_sequence_is_the_papers():
    """Section 2.2: encoded text, CLIP text embedding, timestep, noised image embedding, and a last one to answer."""
    prior, condition, (x, label) = build(), captions(), inputs()
    seen = []
    prior.transformer.register_forward_hook(lambda module, given, output: seen.append((given[0], output)))
    prediction = prior(x, label, condition)
    ((sequence, output),) = seen
    content = sequence - prior.positions
    assert sequence.shape == (3, 4 + 4, 16)
    expected = [
        prior.text_in(condition.text_embedding),
        prior.label(label),
        prior.image_in(x),
        prior.query.expand(3, -1),
    ]
    torch.testing.assert_close(content[:, :4], prior.states_in(condition.text_states))
    torch.testing.assert_close(content[:, 4:], torch.stack(expected, dim=1))
    assert prior.transformer.causal
    torch.testing.assert_close(prediction, prior.image_out(prior.norm_out(output[:, -1])))


@pytest.mark.parametrize("part", ["text_embedding", "text_states", "x", "label"])
def test_everything_in_the_sequence_counts(part):
    prior, condition, (x, label) = build(), captions(), inputs()
    before = prior(x, label, condition)
    if part == "x":
        x = x + 1
    elif part == "label":
        label = label + 1
    else:
        condition = replace(condition, **{part: -getattr(condition, part)})
    assert not torch.isclose(prior(x, label, condition), before, atol=1e-4).all(dim=1).any()


def test_padding_changes_nothing():
    prior, condition, (x, label) = build(), captions(), inputs()
    states = torch.where(condition.text_mask[..., None], condition.text_states, 7.0)
    torch.testing.assert_close(
        prior(x, label, replace(condition, text_states=states)), prior(x, label, condition)
    )
    everything = replace(condition, text_mask=torch.ones(3, 4, dtype=torch.bool))
    assert not torch.allclose(prior(x, label, everything)[:2], prior(x, label, condition)[:2], atol=1e-4)


def test_a_dropped_caption_leaves_no_trace():
    """Not even of its length."""
    prior, condition, (x, label) = build(), captions(), inputs()
    other = PriorCondition(
        -condition.text_embedding, -condition.text_states, condition.text_mask.flip(0), condition.keep
    )
    torch.testing.assert_close(prior(x, label, condition.null()), prior(x, label, other.null()))
    assert not torch.allclose(prior(x, label, condition.null()), prior(x, label, condition), atol=1e-4)


def test_drop_and_null_agree():
    prior, condition, (x, label) = build(), captions(), inputs()
    mixed = prior(x, label, condition.drop(torch.tensor([True, False, True])))
    torch.testing.assert_close(mixed[[0, 2]], prior(x, label, condition.null())[[0, 2]])
    torch.testing.assert_close(mixed[1], prior(x, label, condition)[1])
    none = torch.zeros(3, dtype=torch.bool)
    assert condition.null().drop(none).keep.tolist() == [False] * 3
    assert condition.keep.all()


def test_the_paper_drops_a_tenth_of_the_captions_and_predicts_x0():
    assert (CONFIG.process.parametrization, CONFIG.process.schedule) == ("x0", "cosine")


def test_standardising_is_undone_and_travels_with_the_weights():
    prior, (z, _) = build(), inputs()
    torch.testing.assert_close(prior.unstandardise(prior.standardise(z)), z)
    torch.testing.assert_close(prior.unstandardise(torch.zeros(1, 6))[0], torch.linspace(-1, 1, 6))
    other = DiffusionPrior(CONFIG)
    other.load_state_dict(prior.state_dict())
    assert torch.equal(other.standardise(z), prior.standardise(z))


def test_repeating_a_condition_keeps_copies_together():
    condition = captions()
    copies = condition.drop(torch.tensor([False, True, False])).repeat(2)
    assert copies.keep.tolist() == [True, True, False, False, True, True]
    assert torch.equal(copies.text_states[3], condition.text_states[1])
    assert torch.equal(copies.text_mask[4], condition.text_mask[2])


def noise(batch: int = 3, candidates: int = 1) -> Noise:
    return Noise(range(10, 10 + batch * candidates))


def test_of_the_candidates_the_one_nearest_to_the_caption_is_kept():
    prior, condition = build(), captions()
    kept = prior.sample(condition, noise(3, 4), candidates=4, steps=3)
    drawn = prior.unstandardise(sample(prior.sample_steps(condition.repeat(4), noise(3, 4), steps=3)))
    drawn = drawn.reshape(3, 4, 6)
    for row in range(3):
        cosines = cosine_similarity(drawn[row], condition.text_embedding[row : row + 1], dim=1)
        assert torch.equal(kept[row], drawn[row, cosines.argmax()])
    assert (
        len({int(row.argmax()) for row in cosine_similarity(drawn, condition.text_embedding[:, None], dim=2)})
        > 1
    )


def test_two_candidates_are_the_papers_default():
    prior, condition = build(), captions()
    assert torch.equal(
        prior.sample(condition, noise(3, 2), steps=2),
        prior.sample(condition, noise(3, 2), steps=2, candidates=2),
    )


def test_nearest_compares_directions_and_not_lengths():
    candidates = torch.tensor([[[1.0, 0.1], [9.0, 9.0]], [[0.0, 1.0], [5.0, 5.0]]])
    text = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    assert nearest(candidates, text).tolist() == [candidates[0, 0].tolist(), candidates[1, 0].tolist()]


def test_guidance_leads_from_null_through_the_condition():
    prior, condition = build(), captions()

    def drawn(given: PriorCondition, **settings) -> torch.Tensor:
        # One step from pure noise gives the guided estimate of x0 itself.
        return sample(prior.sample_steps(given, noise(), steps=1, **settings))

    cond, null = drawn(condition), drawn(condition.null())
    torch.testing.assert_close(drawn(condition, guidance=3.0), null + 3 * (cond - null))
    torch.testing.assert_close(drawn(condition, guidance=0.0), null)
    negative = replace(condition, text_embedding=-condition.text_embedding)
    away = drawn(negative)
    torch.testing.assert_close(drawn(condition, guidance=3.0, null=negative), away + 3 * (cond - away))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m"])
def test_a_sample_does_not_see_its_batch(sampler):
    prior, condition = build(), captions()
    together = prior.sample(condition, noise(), candidates=1, steps=4, sampler=sampler, guidance=2.0)
    alone = captions()
    alone = PriorCondition(
        alone.text_embedding[1:2], alone.text_states[1:2], alone.text_mask[1:2], alone.keep[1:2]
    )
    single = prior.sample(alone, Noise([11]), candidates=1, steps=4, sampler=sampler, guidance=2.0)
    torch.testing.assert_close(together[1:2], single, atol=1e-5, rtol=1e-5)


def test_a_trained_prior_draws_the_embedding_of_its_caption():
    """Three captions, three embeddings: training and sampling meet; the control is an untrained prior."""
    prior, condition = build(), captions()
    truth = 2 * torch.eye(6)[:3]
    torch.manual_seed(0)
    model = Preconditioned(prior, CONFIG.process.build())
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    config = LossConfig(density=UniformTime(), weight="x0")
    before = prior.sample(condition, noise(), candidates=1, steps=8)
    for step in range(80):
        draws = Noise([step * 3 + row for row in range(3)])
        sigma = config.density.sigma(draws.fork("sigma").uniform(), model.process)
        loss = diffusion_loss(model, prior.standardise(truth), draws.normal(6), sigma, condition, config)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    after = prior.sample(condition, noise(), candidates=1, steps=8)
    assert cosine_similarity(after, truth).min() > 0.95
    assert cosine_similarity(before, truth).min() < 0.8


def test_captions_of_another_clip_are_refused():
    prior, condition, (x, label) = build(), captions(), inputs()
    with pytest.raises(ValueError, match=r"states are \(3, 5\) \(tokens, width\), this prior reads \(4, 5\)"):
        prior(
            x,
            label,
            replace(
                condition, text_states=condition.text_states[:, :3], text_mask=condition.text_mask[:, :3]
            ),
        )


@torch.no_grad()
def test_a_caption_that_was_read_before_gives_the_same():
    config = DiffusionPriorConfig(embedding=6, context=5, text_width=7, width=16, layers=2, heads=2)
    torch.manual_seed(0)
    prior = DiffusionPrior(config).eval()
    mask = torch.tensor([[True, True, False, False, False], [True] * 5])
    condition = PriorCondition(torch.randn(2, 6), torch.randn(2, 5, 7), mask, torch.tensor([True, True]))
    x, label = torch.randn(2, 6), torch.tensor([3.0, 900.0])
    for one in (condition, condition.null()):
        read = prior.read(one)
        assert read.memory is not None
        assert (prior(x, label, read) - prior(x, label, one)).abs().max() < 1e-6
    assert condition.null().memory is None
    assert prior.read(condition).drop(torch.tensor([True, False])).memory is None
    with torch.enable_grad():
        assert prior.read(condition).memory is None
