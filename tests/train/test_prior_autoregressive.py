"""The autoregressive prior's stage: what it takes from the training embeddings, its loss, its whole training."""

import json
import math

import numpy as np
import pytest
import torch

from unclip import recipes
from unclip.checkpoints.io import load_model
from unclip.config import override
from unclip.networks.embedding_codes import dimensions_for
from unclip.networks.prior_autoregressive import AutoregressivePrior
from unclip.rng import Noise
from unclip.train.loop import train
from unclip.train.tasks.captions import condition_of


@pytest.fixture
def make(tmp_path, clip_run, decoded):
    """`make("seed=1")`: the tiny recipe, smaller and of 48 samples."""
    small = ["model.width=16", "model.layers=1", "samples=48", "batch=8", f"clip={clip_run}"]
    paths = [f"out={tmp_path / 'run'}", f"data.cache={decoded}"]
    return lambda *changes: override(recipes.get("tiny", "prior_autoregressive"), [*small, *paths, *changes])


def test_it_takes_after_its_clip_and_keeps_the_components_that_it_needs(make, begin):
    run = begin(make())
    text, config = run.batches.clip.clip.config.text, run.task.network.config
    assert (config.embedding, config.text_width, config.context) == (8, text.width, text.context)
    assert config.dimensions == dimensions_for(run.batches.train_embeddings, 0.01)
    rough = begin(make("reconstruction_error=0.5", f"out={make().out}2")).task
    assert rough.network.config.dimensions < config.dimensions
    given = begin(make("reconstruction_error=null", "model.dimensions=3", f"out={make().out}3")).task
    assert given.network.config.dimensions == 3


def test_codes_lose_little_of_the_training_embeddings(make, begin):
    run = begin(make())
    z, codes = run.batches.train_embeddings, run.task.network.codes
    lost = (z - codes.decode(codes.encode(z))).square().sum() / (z - z.mean(0)).square().sum()
    # 1 % by the components left out, the rest by 16 buckets.
    assert lost < 0.04


def test_every_token_of_the_dot_product_is_used(make, begin):
    run = begin(make())
    indices = np.arange(0, len(run.batches.train), 7)
    pairs = run.batches.pairs(indices, Noise(indices.tolist()))
    text = condition_of(run.batches.clip, pairs.tokens).text_embedding
    tokens = run.task.network.dot(pairs.image_embedding, text)
    shares = tokens.bincount(minlength=8) / len(tokens)
    assert 0.03 < shares.min() <= shares.max() < 0.3


def test_the_loss_is_the_negative_log_likelihood(make, begin):
    run = begin(make("dropout_text=0"))
    numbers = np.arange(4)
    noise = Noise(numbers.tolist())
    batch, network = run.batches.batch(numbers, noise), run.task.network
    loss = run.task(batch, noise).loss.item()
    condition = condition_of(run.batches.clip, batch.tokens)
    codes = network.codes.encode(batch.image_embedding)
    dot = network.dot(batch.image_embedding, condition.text_embedding)
    with torch.no_grad():
        predicted = network(codes, dot, condition)
    of_codes = predicted.codes.softmax(-1).gather(2, codes[..., None])[..., 0]
    of_dot = predicted.dot.softmax(-1).gather(1, dot[:, None])
    assert loss == pytest.approx(-torch.cat([of_dot, of_codes], 1).log().mean().item(), rel=1e-5)
    # A network that knows nothing yet is about as good as guessing among 16 codes.
    assert loss == pytest.approx(math.log(16), abs=1.0)


def test_dropped_captions_change_the_loss_and_are_fixed_by_the_noise(make, begin):
    run = begin(make("dropout_text=0.5"))
    numbers = np.arange(8)

    def loss() -> float:
        noise = Noise(numbers.tolist())
        return run.task(run.batches.batch(numbers, noise), noise).loss.item()

    before = loss()
    assert before == loss()
    with torch.no_grad():
        run.task.network.null_text.mul_(-3)
    assert loss() != before


def test_a_whole_training_leaves_a_model_that_samples(make, clip_run):
    config = make("validate_every=48")
    folder = train(config, device="cpu")
    parts = load_model(folder)
    assert set(parts) == {"prior_autoregressive"}
    network = parts["prior_autoregressive"]
    assert isinstance(network, AutoregressivePrior)
    assert network.codes.levels.diff(dim=1).min() >= 0
    lines = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    measured = lines[-1]
    assert measured["validation_cosine_coded_image"] > 0.98
    assert measured["validation_loss"] != measured["validation_loss_without_caption"]
    for name in (
        "loss_first",
        "loss_first_without_caption",
        "loss_dot",
        "cosine_sampled_image",
        "cosine_sampled_text",
    ):
        assert math.isfinite(measured[f"validation_{name}"])
