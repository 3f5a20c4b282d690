"""Training and sampling of a diffusion model for data of any kind: Algorithms 1 and 2 of DDPM (arXiv 2006.11239).

The examples on points (`toy_2d.py`) and on sound (`audio.py`) use it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unclip.diffusion.losses import LossConfig, diffusion_loss
from unclip.diffusion.parametrization import Preconditioned, ProcessConfig
from unclip.diffusion.paths import start
from unclip.diffusion.samplers import SAMPLERS, sample
from unclip.rng import Noise


def train(
    network: nn.Module,
    process: ProcessConfig,
    loss: LossConfig,
    data: Callable[[Noise], Tensor],
    iterations: int,
    batch: int,
) -> Preconditioned:
    """The network as a denoiser, trained on `data(noise)`, which makes one sample per stream of noise."""
    model = Preconditioned(network, process.build())
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for step in range(iterations):
        noise = Noise(range(step * batch, (step + 1) * batch))
        x0 = data(noise)
        sigma = loss.density.sigma(noise.fork("sigma").uniform(), model.process)
        eps = noise.fork("eps").normal(*x0.shape[1:])
        mean = diffusion_loss(model, x0, eps, sigma, None, loss).mean()
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == iterations - 1:
            print(f"{step}: loss {mean.item():.3f}")
    return model


def draw(model: Preconditioned, shape: tuple[int, ...], count: int, sampler: str, steps: int) -> Tensor:
    """`count` samples of a shape; sample k is the same whatever `count` is."""
    noise, levels = Noise(range(count)), model.process.grid(steps)
    x = start(noise.normal(*shape), levels[0])
    return sample(SAMPLERS[sampler](model.bind(None), x, levels, noise=noise))
