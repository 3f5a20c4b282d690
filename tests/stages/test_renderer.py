"""Renderers: what tiles share with the network, the network of the last step, and grids for inversion."""

import pytest
import torch

from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.tiling import TiledUnet
from unclip.networks.unet import Unet, UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerConfig
from unclip.rng import Noise
from unclip.stages.conditioner import Condition
from unclip.stages.renderer import inversion_grid, upsampler_renderer

FLOW = ProcessConfig(parametrization="x0", schedule="flow")


def upsampler(*, last_step: bool = False, low: int = 16) -> Upsampler:
    """An upsampler by 2 with random weights."""
    torch.manual_seed(0)
    net = UnetConfig(in_channels=6, channels=8, multiples=(1, 2), blocks=1, norm="rms")
    config = UpsamplerConfig(net=net, process=FLOW, low_size=low, high_size=2 * low, last_step=last_step)
    made = Upsampler(config).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.normal_(std=0.1)
    return made


def test_tiles_share_the_weights_and_leave_the_network(monkeypatch):
    network, seen = upsampler(last_step=True), []
    forward = TiledUnet.forward
    monkeypatch.setattr(
        TiledUnet, "forward", lambda self, *given: seen.append(self.net) or forward(self, *given)
    )
    renderer, low = upsampler_renderer(network, 32), torch.zeros(1, 3, 16, 16)
    grid = renderer.grid(3)
    denoise, x = renderer.denoiser(Condition(low=low), grid=grid), torch.zeros(1, 3, 32, 32)
    for level in grid[:-1]:
        denoise(x, level[None])
    assert seen == [network.net, network.net, network.last_net]
    assert isinstance(network.net, Unet)
    assert isinstance(network.last_net, Unet)


def test_tiles_do_not_change_the_picture():
    network = upsampler()
    low = torch.rand(1, 3, 8, 80, generator=torch.Generator().manual_seed(1)) * 2 - 1
    pictures = []
    for tile in (None, 16):
        renderer, noise = upsampler_renderer(network, tile), Noise([1])
        grid = renderer.grid(2)
        x = renderer.noise_state(noise, grid[0], 16, 160, torch.device("cpu"))
        steps = renderer.sample(
            renderer.denoiser(Condition(low=low), grid=grid), x, grid, sampler="ddim", noise=noise
        )
        pictures.append([step.x for step in steps][-1])
    torch.testing.assert_close(*pictures, rtol=1e-4, atol=1e-4)


def test_the_last_step_has_its_own_network():
    network = upsampler(last_step=True)
    renderer, x = upsampler_renderer(network), torch.randn(1, 3, 32, 32)
    condition = Condition(low=torch.zeros(1, 3, 16, 16))
    grid = renderer.grid(3)
    switched, first = renderer.denoiser(condition, grid=grid), renderer.denoiser(condition)
    for index, level in enumerate(grid[:-1]):
        same = torch.equal(switched(x, level[None]).x0, first(x, level[None]).x0)
        assert same == (index < 2)


def test_an_upsampler_needs_small_pictures():
    with pytest.raises(ValueError, match="needs small pictures"):
        upsampler_renderer(upsampler()).denoiser(Condition())


def test_a_network_that_predicts_x0_is_not_inverted_at_hardly_any_noise():
    flow, table = (
        ProcessConfig(parametrization=name, schedule=schedule).build()
        for name, schedule in (("x0", "flow"), ("eps", "cosine"))
    )
    grid = inversion_grid(flow, 40)
    assert grid[-2:].tolist() == [pytest.approx(0.1), 0.0]
    assert (grid.diff() < 0).all()
    assert torch.equal(grid[:-2], flow.grid(40)[: len(grid) - 2])
    assert torch.equal(inversion_grid(table, 40), table.grid(40))
