"""What the stages hand to their networks."""

import numpy as np
import pytest
import torch

from unclip.checkpoints.io import space_of
from unclip.diffusion.parametrization import Preconditioned
from unclip.rng import Noise
from unclip.train.tasks.clip_loss import CaptionNames, names_of
from unclip.train.tasks.hints import random_hint


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


def loss_of(run, numbers):
    noise = Noise(numbers.tolist())
    return run.task(run.batches.batch(numbers, noise), noise)


def test_captions_fit_by_their_words_or_their_tokens():
    said = names_of(["a cat", "A dog", "a bird"])
    own = names_of(["A CAT", "a dog", "a dog", "a puppy", "a bird", "a bird"]).reshape(3, 2)
    by_words = CaptionNames(torch.arange(3), said, own)
    assert by_words.fits(by_words).tolist() == [
        [True, True, False],
        [False, True, False],
        [False, False, True],
    ]
    by_tokens = by_words._replace(tokens=torch.tensor([5, 6, 5]), own=said[:, None])
    assert by_tokens.fits(by_tokens).tolist() == [
        [True, False, True],
        [False, True, False],
        [True, False, True],
    ]


def test_equal_captions_are_no_negatives(small, begin):
    """Two pictures of one caption: each caption has only its own picture left, and nothing is to be learned."""
    run = begin(small("clip"))
    source = run.batches.train
    first = source.decoded.samples[int(source.indices(np.array([0]))[0])].captions
    source.captions = lambda indices, noise=None: [first[0]] * len(indices)
    numbers = np.arange(2)
    assert loss_of(run, numbers).loss.item() == 0
    source.captions = lambda indices, noise=None: [first[0], first[1]]
    assert loss_of(run, numbers).loss.item() > 0


def test_a_caption_that_fits_both_pictures_is_no_negative_though_another_was_drawn(small, begin):
    """Pictures share captions, of which each draws one: what the other drew fits it as well."""
    run = begin(small("clip"))
    source = run.batches.train
    everything = [sample.captions for sample in source.decoded.samples]
    twin = everything.index(everything[0], 1)
    other = next(index for index, captions in enumerate(everything) if not set(captions) & set(everything[0]))
    numbers = np.arange(2)

    def loss(second: int) -> float:
        source.indices = lambda numbers: np.array([0, second])
        source.captions = lambda indices, noise=None: [everything[0][0], everything[second][1]]
        return loss_of(run, numbers).loss.item()

    assert everything[0][0] != everything[0][1]
    assert loss(twin) == 0
    assert loss(other) > 0


class Seen(Exception):
    """Carries what a network was given, in place of its answer."""


def test_the_decoder_loses_its_conditions_as_often_as_the_paper_says(small, begin, monkeypatch):
    run = begin(small("decoder"))
    numbers = np.arange(800)

    def encode(condition):
        raise Seen(condition)

    monkeypatch.setattr(run.task.network, "encode", encode)
    with pytest.raises(Seen) as seen:
        loss_of(run, numbers)
    (condition,) = seen.value.args
    image, caption = ~condition.keep_image, ~condition.keep_caption
    # Four standard errors: 0.042 and 0.071; and each is dropped without regard to the other.
    assert image.float().mean().item() == pytest.approx(0.1, abs=0.042)
    assert caption.float().mean().item() == pytest.approx(0.5, abs=0.071)
    assert (image & caption).float().mean().item() == pytest.approx(0.05, abs=0.031)


def test_the_decoder_is_told_how_its_pictures_were_moved(small, begin, monkeypatch):
    run = begin(small("decoder", "model.augmentation=2"))
    source = run.batches.train
    samples = source.decoded.samples
    for number, sample in enumerate(samples):
        sample.meta["augment"] = [float(number), 1.0]
    numbers = np.arange(6)

    def encode(condition):
        raise Seen(condition.augmentation)

    monkeypatch.setattr(run.task.network, "encode", encode)
    with pytest.raises(Seen) as seen:
        loss_of(run, numbers)
    rows = source.indices(numbers)
    assert seen.value.args[0].tolist() == [[float(row), 1.0] for row in rows]
    del samples[rows[0]].meta["augment"]
    assert source.augmentations(rows[:1], 2).tolist() == [[0.0, 0.0]]
    with pytest.raises(ValueError, match="have 2 augmentation parameters, the decoder reads 5"):
        source.augmentations(rows, 5)


def test_the_expected_loss_is_learned_beside(small, begin):
    run = begin(small("decoder", "uncertainty=true"))
    numbers = np.arange(4)
    found = loss_of(run, numbers)
    torch.testing.assert_close(found.loss.detach(), found.metrics["unweighted"])
    found.loss.backward()
    assert run.task.uncertainty.bias.grad.item() == pytest.approx(1 - found.loss.item(), abs=1e-5)


def test_the_prior_loses_a_tenth_of_its_captions(small, begin):
    run = begin(small("prior"))
    numbers = np.arange(800)

    def network(x, label, condition):
        raise Seen(condition)

    run.task.training_denoiser = Preconditioned(network, run.task.process)
    with pytest.raises(Seen) as seen:
        loss_of(run, numbers)
    dropped = ~seen.value.args[0].keep
    assert dropped.float().mean().item() == pytest.approx(0.1, abs=0.042)


def test_the_prior_learns_standardised_embeddings(small, begin):
    run = begin(small("prior"))
    network, embeddings = run.task.network, run.batches.train_embeddings
    standardised = network.standardise(embeddings)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(8), rtol=0, atol=1e-4)
    assert standardised.square().mean().item() == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(network.unstandardise(standardised), embeddings)


def test_the_decoder_takes_after_its_clip(small, begin):
    run = begin(small("decoder"))
    batches = run.batches
    config, tokenizer = run.task.network.config, batches.clip.tokenizer
    assert config.embedding == batches.clip.embedding == 8
    assert batches.space == space_of(batches.clip.clip)
    assert config.caption.vocabulary == tokenizer.vocabulary
    assert (config.caption.end, config.caption.context) == (tokenizer.end, tokenizer.context)
    scaled = batches.train_embeddings * config.embedding_scale
    assert scaled.square().mean().item() == pytest.approx(1, rel=1e-3)


def test_embeddings_are_computed_once(small, begin, monkeypatch):
    config = small("decoder")
    first = begin(config).batches
    monkeypatch.setattr(type(first.clip.clip), "encode_image", None)
    again = begin(config).batches
    assert torch.equal(again.train_embeddings, first.train_embeddings)
    assert torch.equal(again.held_out_embeddings, first.held_out_embeddings)
    assert len(first.train_embeddings) == len(first.train)


@pytest.mark.parametrize("stage", ["clip", "prior", "decoder", "upsampler"])
def test_every_trained_weight_is_reached_through_forward(small, begin, stage):
    """As wrappers such as DDP and FSDP require; and nothing but trained weights and the network's buffers is state."""
    extra = ("uncertainty=true",) if stage == "decoder" else ()
    run = begin(small(stage, *extra))
    loss_of(run, np.arange(8)).loss.backward()
    trained = dict(run.task.named_parameters())
    assert all(weight.requires_grad and weight.grad is not None for weight in trained.values())
    network = {f"network.{name}" for name in run.task.network.state_dict()}
    assert run.task.state_dict().keys() - network == (
        {"uncertainty.weight", "uncertainty.bias"} if extra else set()
    )
