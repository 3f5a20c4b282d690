"""The autoregressive prior's objective: what it takes from the training embeddings, its loss, its whole training."""

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


@pytest.fixture
def make(tmp_path, clip_run, decoded):
    """`make("seed=1")`: the tiny recipe, smaller and of 48 samples."""
    small = ["model.width=16", "model.layers=1", "samples=48", "batch=8", f"clip={clip_run}"]
    paths = [f"out={tmp_path / 'run'}", f"data.cache={decoded}"]
    return lambda *changes: override(recipes.get("tiny", "prior_autoregressive"), [*small, *paths, *changes])


def test_it_takes_after_its_clip_and_keeps_the_components_that_it_needs(make, begin):
    objective = begin(make()).objective
    text, config = objective.clip.clip.config.text, objective.model.config
    assert (config.embedding, config.text_width, config.context) == (8, text.width, text.context)
    assert config.dimensions == dimensions_for(objective.train_embeddings, 0.01)
    rough = begin(make("model.reconstruction_error=0.5", f"out={make().out}2")).objective
    assert rough.model.config.dimensions < config.dimensions
    given = begin(
        make("model.reconstruction_error=null", "model.dimensions=3", f"out={make().out}3")
    ).objective
    assert given.model.config.dimensions == 3


def test_codes_lose_little_of_the_training_embeddings(make, begin):
    objective = begin(make()).objective
    z, codes = objective.train_embeddings, objective.model.codes
    lost = (z - codes.decode(codes.encode(z))).square().sum() / (z - z.mean(0)).square().sum()
    # 1 % by the components left out, the rest by 16 buckets.
    assert lost < 0.04


def test_every_token_of_the_dot_product_is_used(make, begin):
    objective = begin(make()).objective
    indices = np.arange(0, len(objective.train), 7)
    captions = objective.train.captions(indices, Noise(indices.tolist()))
    text = objective.condition(captions).text_embedding
    tokens = objective.model.dot(objective.train_embeddings[torch.from_numpy(indices)], text)
    shares = tokens.bincount(minlength=8) / len(tokens)
    assert 0.03 < shares.min() <= shares.max() < 0.3


def test_the_loss_is_the_negative_log_likelihood(make, begin):
    objective = begin(make("model.dropout_text=0")).objective
    numbers = np.arange(4)
    noise = Noise(numbers.tolist())
    loss = objective.loss(numbers, noise).loss.item()
    indices = objective.train.indices(numbers)
    z = objective.train_embeddings[torch.from_numpy(indices)]
    condition = objective.condition(objective.train.captions(indices, noise))
    codes = objective.model.codes.encode(z)
    dot = objective.model.dot(z, condition.text_embedding)
    with torch.no_grad():
        predicted = objective.model(codes, dot, condition)
    of_codes = predicted.codes.softmax(-1).gather(2, codes[..., None])[..., 0]
    of_dot = predicted.dot.softmax(-1).gather(1, dot[:, None])
    assert loss == pytest.approx(-torch.cat([of_dot, of_codes], 1).log().mean().item(), rel=1e-5)
    # A network that knows nothing yet is about as good as guessing among 16 codes.
    assert loss == pytest.approx(math.log(16), abs=1.0)


def test_dropped_captions_change_the_loss_and_are_fixed_by_the_noise(make, begin):
    objective = begin(make("model.dropout_text=0.5")).objective
    numbers = np.arange(8)

    def loss() -> float:
        return objective.loss(numbers, Noise(numbers.tolist())).loss.item()

    before = loss()
    assert before == loss()
    with torch.no_grad():
        objective.model.null_text.mul_(-3)
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
