"""benchmarks/decoders.py: its trials can be built, and differ."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from unclip.networks.decoder import Decoder, DecoderConfig
from unclip.networks.unet import UnetConfig

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> dict:
    """benchmarks/decoders.py, which imports another one beside it."""
    sys.path.insert(0, str(FOLDER))
    try:
        return runpy.run_path(str(FOLDER / "decoders.py"))
    finally:
        sys.path.remove(str(FOLDER))


def test_every_trial_can_be_built(benchmark):
    trials = benchmark["trials"]()
    for config in trials.values():
        assert isinstance(config.model, DecoderConfig)
        with torch.device("meta"):
            Decoder(config.model)
        net = config.model.net
        # Convolutions are not for Muon, and labels have to reach the range of a net's sinusoids.
        assert config.optimizer.muon_learning_rate is None or not isinstance(net, UnetConfig)


def test_trials_differ(benchmark):
    trials = benchmark["trials"]()
    assert len({benchmark["folder_of"](name) for name in trials}) == len(trials)
    first, *others = trials.values()
    assert all(config != first for config in others)
    for config in others:
        assert (config.batch, config.seed, config.data) == (first.batch, first.seed, first.data)
