"""The diffusion prior: its sequence and its conditions."""

from dataclasses import replace

import pytest
import torch

from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig, PriorCondition

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
        read = prior.precompute(one)
        assert read.memory is not None
        assert (prior(x, label, read) - prior(x, label, one)).abs().max() < 1e-6
    assert condition.null().memory is None
    assert prior.precompute(condition).drop(torch.tensor([True, False])).memory is None
    with torch.enable_grad():
        assert prior.precompute(condition).memory is None
