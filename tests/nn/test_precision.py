"""The choice between bfloat16 and float32 follows a measurement of the machine."""

import logging

import pytest
import torch

from unclip.nn import precision


@pytest.fixture(autouse=True)
def forget():
    """Each test measures anew."""
    precision.fastest.cache_clear()
    yield
    precision.fastest.cache_clear()


@pytest.mark.parametrize(("ratio", "chosen"), [(0.12, "fp32"), (1.0, "fp32"), (1.1, "fp32"), (2.0, "bf16")])
def test_auto_is_what_is_faster(monkeypatch, caplog, ratio, chosen):
    calls = []
    monkeypatch.setattr(precision, "speedup", lambda: calls.append(None) or ratio)
    with caplog.at_level(logging.INFO, "unclip"):
        assert [precision.choose("auto", "cpu") for _ in range(3)] == [chosen] * 3
    assert len(calls) == len(caplog.records) == 1
    assert chosen in caplog.text


def test_what_is_given_is_not_measured(monkeypatch):
    monkeypatch.setattr(precision, "speedup", None)
    assert precision.choose("bf16", "cpu") == "bf16"
    assert precision.choose("fp32", "cuda") == "fp32"


@pytest.mark.parametrize(("supported", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_on_cuda_it_is_a_capability(monkeypatch, supported, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert precision.choose("auto", "cuda:0") == chosen


def test_a_measurement_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    assert precision.speedup() > 0
    assert torch.get_num_threads() == before
