"""What the stages hand to their losses."""

import numpy as np
import pytest
import torch

from unclip.checkpoints.space import PROJECTION, sketch
from unclip.rng import Noise
from unclip.train.objectives.clip import same_captions
from unclip.train.objectives.hints import random_hint


def is_rectangle(mask):
    return torch.equal(mask.amax(1)[:, None] * mask.amax(0)[None, :], mask)


def test_hints():
    x0 = torch.randn(600, 3, 8, 8)
    masked, mask = random_hint(x0, Noise(range(600)), dropout=0.25).split([3, 1], dim=1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masked, x0 * mask)
    shares = mask.flatten(1).mean(1)
    empty = (shares == 0).float().mean().item()
    # A quarter keeps nothing on purpose; a thin rectangle that was to be kept may miss all pixels too.
    assert 0.2 < empty < 0.4
    # Holes in the middle and pictures to be continued outwards: the corner is kept by the first, not by the second.
    some = shares > 0
    assert 0.1 < (mask[some, 0, 0, 0] == 0).float().mean() < 0.6
    # What is hidden, or what is kept, is one rectangle.
    for kept in mask[:50, 0]:
        assert is_rectangle(kept) or is_rectangle(1 - kept)


def test_equal_captions_are_found():
    tokens = torch.tensor([[1, 2, 0], [1, 3, 0], [1, 2, 0]])
    expected = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]]).bool()
    assert torch.equal(same_captions(tokens), expected)


def test_equal_captions_are_no_negatives(small, begin):
    """Two pictures of one caption: each caption has only its own picture left, and nothing is to be learned."""
    objective = begin(small("clip")).objective
    source = objective.train
    first = source.resident.samples[int(source.indices(np.array([0]))[0])].captions
    source.captions = lambda indices, noise=None: [first[0]] * len(indices)
    numbers = np.arange(2)
    assert objective.loss(numbers, Noise(numbers.tolist())).loss.item() == 0
    source.captions = lambda indices, noise=None: [first[0], first[1]]
    assert objective.loss(numbers, Noise(numbers.tolist())).loss.item() > 0


def test_the_prior_learns_standardised_embeddings(small, begin):
    objective = begin(small("prior")).objective
    standardised = objective.model.standardise(objective.train_embeddings)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(8), rtol=0, atol=1e-4)
    assert standardised.square().mean().item() == pytest.approx(1, rel=1e-4)
    restored = objective.model.unstandardise(standardised)
    torch.testing.assert_close(restored, objective.train_embeddings)


def test_the_decoder_takes_after_its_clip(small, begin):
    objective = begin(small("decoder")).objective
    config, tokenizer = objective.model.config, objective.clip.tokenizer
    assert config.embedding == objective.clip.embedding == 8
    assert objective.space.sketch == sketch(objective.clip.clip.get_parameter(PROJECTION))
    assert config.caption.vocabulary == tokenizer.vocabulary
    assert (config.caption.end, config.caption.context) == (tokenizer.end, tokenizer.context)
    scaled = objective.train_embeddings * config.embedding_scale
    assert scaled.square().mean().item() == pytest.approx(1, rel=1e-3)


def test_embeddings_are_computed_once(small, begin, monkeypatch):
    config = small("decoder")
    first = begin(config).objective
    monkeypatch.setattr(type(first.clip.clip), "encode_image", None)
    again = begin(config).objective
    assert torch.equal(again.train_embeddings, first.train_embeddings)
    assert torch.equal(again.held_out_embeddings, first.held_out_embeddings)
    assert len(first.train_embeddings) == len(first.train)
