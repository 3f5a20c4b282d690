"""A run's precision: chosen once, recorded in its folder, kept when it is resumed."""

import json
from dataclasses import replace

import pytest
import torch

from unclip.nn import precision
from unclip.train.config import read_config
from unclip.train.loop import train
from unclip.train.run_folder import with_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("chosen", ["bf16", "fp32"])
def test_a_resumed_run_keeps_what_was_chosen(small, monkeypatch, chosen):
    config = small("upsampler", "precision=auto", "samples=8")
    monkeypatch.setattr(precision, "fastest", lambda device: chosen)
    train(config, device="cpu")
    file = f"{config.out}/config.json"
    with open(file, encoding="utf-8") as written:
        assert read_config(json.load(written)).precision == chosen
    # On another machine the measurement would say otherwise.
    monkeypatch.setattr(precision, "fastest", lambda device: {"bf16": "fp32", "fp32": "bf16"}[chosen])
    assert with_precision(config, CPU).precision == chosen
    train(config, device="cpu")
    with pytest.raises(ValueError, match="differs in precision"):
        train(replace(config, precision={"bf16": "fp32", "fp32": "bf16"}[chosen]), device="cpu")


def test_a_run_without_a_choice_is_refused(small, begin):
    with pytest.raises(ValueError, match="with_precision"):
        begin(small("upsampler", "precision=auto"))
