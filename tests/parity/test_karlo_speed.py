"""What makes Karlo quick and small changes its pictures by no more than rounding."""

import numpy as np
import pytest
import torch

import unclip
from unclip import Model
from unclip.generate.offload import InTurn
from unclip.networks.inference import prepack
from unclip.networks.upsampler import Upsampler
from unclip.nn.packed import can_pack

STEPS = {"prior_steps": 3, "steps": 3, "upsampler_steps": 3}


def pixels(system: Model) -> np.ndarray:
    (picture,) = system.generate("a red cat", seed=5, **STEPS)
    return np.asarray(picture.image)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_offload_draws_the_same_with_one_net_of_the_upsampler_at_a_time(karlo_folder, dtype):
    expected = pixels(unclip.load(karlo_folder, device="cpu", dtype=dtype))
    system = unclip.load(karlo_folder, device="cpu", dtype=dtype, offload=True)
    assert np.array_equal(pixels(system), expected)
    with system.parts.lend("upsampler", Upsampler) as upsampler:
        first, last = upsampler.net, upsampler.last_net
        assert isinstance(first, InTurn)
        assert isinstance(last, InTurn)
        # One slot for both: whichever is called last is the one that is held.
        assert first._slot is last._slot


def test_openvino_draws_the_same_to_rounding(karlo_folder, tmp_path, monkeypatch):
    """The decoder attends to masked captions, and the upsampler has a net for its last step."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path))
    expected = pixels(unclip.load(karlo_folder, device="cpu", dtype="float32"))
    drawn = pixels(unclip.load(karlo_folder, device="cpu", backend="openvino"))
    assert np.abs(drawn.astype(int) - expected.astype(int)).max() <= 1
    assert len(list(tmp_path.rglob("*.xml"))) == 3


@pytest.mark.skipif(not can_pack(), reason="no bfloat16 kernels")
@torch.inference_mode()
def test_nets_in_bfloat16_are_as_exact_as_diffusers(karlo_folder, karlo_parts):
    """The same weights and inputs: ours may be off the float32 answer by no more than theirs is."""
    torch.manual_seed(0)
    theirs = karlo_parts["super_res_first"]
    x, time = torch.randn(1, 6, 32, 32), torch.tensor([400.0])
    exact = theirs(sample=x, timestep=time).sample
    half = type(theirs).from_config(theirs.config).eval()
    half.load_state_dict(theirs.state_dict())
    rough = half.bfloat16()(sample=x.bfloat16(), timestep=time).sample.float()
    system = unclip.load(karlo_folder, device="cpu", dtype="bfloat16")
    with system.parts.lend("upsampler", Upsampler) as upsampler:
        prepack(upsampler)  # already done: nothing more to do
        ours = upsampler.net(x, time)
    assert 0 < (ours - exact).norm() < 1.1 * (rough - exact).norm()
