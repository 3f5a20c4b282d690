"""The models of the paper's table 3, built without memory: how many parameters they have."""

import json

import pytest
import torch
from torch import nn

from unclip.config import to_dict
from unclip.networks.clip import Clip
from unclip.networks.decoder import Decoder
from unclip.networks.prior_autoregressive import AutoregressivePrior
from unclip.networks.prior_diffusion import DiffusionPrior
from unclip.networks.upsampler import Upsampler
from unclip.recipes import dalle2
from unclip.train.config import read_config


def count(model: type[nn.Module], config: object) -> int:
    """The parameters of `model(config)`, none of which is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in model(config).parameters())


# The table has one or two digits. Its prior of "1B" cannot be nearer: 24 blocks of width 2048 alone hold 1.21 billion.
@pytest.mark.parametrize(
    ("model", "recipe", "table", "tolerance"),
    [
        (DiffusionPrior, dalle2.prior, 1.0e9, 0.25),
        (Decoder, dalle2.decoder, 3.5e9, 0.05),
        (Upsampler, dalle2.upsampler, 700e6, 0.05),
        (Upsampler, dalle2.upsampler_1024, 300e6, 0.10),
    ],
)
def test_sizes_agree_with_the_papers_table(model, recipe, table, tolerance):
    assert count(model, recipe().model) == pytest.approx(table, rel=tolerance)


def test_clip_is_as_large_as_the_public_vit_h():
    """OpenCLIP's ViT-H/14 has the same widths and depths: 986,109,441 parameters with 77 tokens of context."""
    assert count(Clip, dalle2.clip().model) == pytest.approx(986_109_441, rel=0.005)


def test_the_autoregressive_prior_has_the_tables_two_transformers():
    """24 blocks of 2048 and 24 of 1664, each with 12 width² weights; all that is around them is small."""
    blocks = 24 * 12 * (2048**2 + 1664**2)
    assert count(AutoregressivePrior, dalle2.prior_autoregressive().model) == pytest.approx(blocks, rel=0.01)


@pytest.mark.parametrize(
    "stage", ["clip", "prior", "prior_autoregressive", "decoder", "upsampler", "upsampler_1024"]
)
def test_the_training_configs_survive_json(stage):
    config = getattr(dalle2, stage)()
    assert read_config(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("recipe", "steps", "batch", "rate", "beta2"),
    [
        (dalle2.prior_autoregressive, 1_000_000, 4096, 1.6e-4, 0.91),
        (dalle2.prior, 600_000, 4096, 1.1e-4, 0.96),
        (dalle2.decoder, 800_000, 2048, 1.2e-4, 0.999),
        (dalle2.upsampler, 1_000_000, 1024, 1.2e-4, 0.999),
        (dalle2.upsampler_1024, 1_000_000, 512, 1.0e-4, 0.999),
    ],
)
def test_training_follows_the_papers_table(recipe, steps, batch, rate, beta2):
    config = recipe()
    assert (config.samples / config.batch, config.batch) == (steps, batch)
    assert (config.optimizer.learning_rate, config.optimizer.betas) == (rate, (0.9, beta2))
    assert config.ema_decay == (0.999 if config.stage == "prior_autoregressive" else 0.9999)
