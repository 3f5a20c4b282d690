"""Dropout by sample: a mask is a function of its sample's key, whatever the batch, and as random as it should be."""

import subprocess
import sys

import pytest
import torch

from unclip.networks.autoencoder import Autoencoder, AutoencoderConfig
from unclip.nn.dropout import SampleDropout, kept_by, seed_dropout
from unclip.rng import Noise


def test_a_mask_belongs_to_its_sample():
    layer = SampleDropout(0.4)
    x = torch.ones(6, 3, 8, 8)
    seed_dropout(layer, Noise(range(6)))
    whole = layer(x)
    assert whole.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    seed_dropout(layer, Noise([4, 2]))
    assert torch.equal(layer(x[:2]), whole[[4, 2]])
    seed_dropout(layer, Noise(range(6)))
    assert torch.equal(layer(x), whole)
    last = layer(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(last, whole)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer.eval()(x), x)


def test_a_network_without_keys_is_refused_in_training():
    layer = SampleDropout(0.4)
    with pytest.raises(ValueError, match="dropout of 2 samples in training needs a key for each"):
        layer(torch.ones(2, 3))
    seed_dropout(layer, Noise([1]))
    with pytest.raises(ValueError, match="dropout of 2 samples"):
        layer(torch.ones(2, 3))
    with pytest.raises(ValueError, match="dropout is 1"):
        SampleDropout(1)


def test_layers_of_a_network_differ():
    config = AutoencoderConfig(channels=8, multiples=(1,), blocks=1, latent_channels=2, groups=4, dropout=0.5)
    network = Autoencoder(config)
    seed_dropout(network, Noise([0, 1]))
    keys = [module.keys for module in network.modules() if isinstance(module, SampleDropout) and module.share]
    assert len(keys) > 2
    assert len({tuple(one.tolist()) for one in keys}) == len(keys)


def test_masks_are_even_and_independent():
    count, share = 200_000, 0.1
    dropped = (~kept_by(Noise(range(16)).keys, count, share)).float() - share
    deviation = (share * (1 - share)) ** 0.5
    # Means of samples and of places, and products of neighbours and of samples, within five standard errors.
    assert dropped.mean(1).abs().max() < 5 * deviation / count**0.5
    assert abs(dropped.mean(0).std() / (deviation / 4) - 1) < 0.02
    for lag in (1, 2, 3, 64, 1024):
        assert (dropped[:, :-lag] * dropped[:, lag:]).mean(1).abs().max() < 5 * deviation**2 / count**0.5
    products = dropped @ dropped.T / count
    assert (products - products.diag().diag()).abs().max() < 5 * deviation**2 / count**0.5


COMPILED = """
import torch
from unclip.nn.dropout import SampleDropout, seed_dropout
from unclip.rng import Noise

layer, x = SampleDropout(0.3), torch.randn(4, 32)
compiled = torch.compile(layer, backend="aot_eager")
for start in range(4):
    seed_dropout(layer, Noise(range(start, start + 4)))
    assert torch.equal(compiled(x), layer(x))
print(torch._dynamo.utils.counters["frames"]["ok"])
"""


def test_compiled_once_for_all_keys():
    # In a process without type checks, which cannot be compiled.
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["1"]
