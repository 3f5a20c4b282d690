"""Where a stage's noise is drawn."""

import pytest
import torch

from unclip.stages.noise import Seeds


@pytest.mark.parametrize(
    ("device", "drawn"), [(None, "cpu"), ("cpu", "cpu"), ("mps", "cpu"), ("cuda", "cuda")]
)
def test_noise_is_drawn_on_cuda_or_on_the_cpu(device, drawn):
    assert Seeds([1], device=None if device is None else torch.device(device)).device.type == drawn


@pytest.mark.gpu
def test_a_gpu_draws_the_same_noise_to_rounding():
    here, there = Seeds([1, 2]), Seeds([1, 2], device=torch.device("cuda"))
    for one, other in ((here.stage("decoder"), there.stage("decoder")), (here.prior(2), there.prior(2))):
        found = other.normal(3, 16, 16)
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), one.normal(3, 16, 16), rtol=1e-5, atol=1e-6)
