"""The diffusion core on points in the plane: train a small network on a spiral, then sample it.

python examples/toy_2d.py --parametrization eps --iterations 2000 --out toy.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusion_loop import draw, train
from PIL import Image
from torch import nn

from unclip.diffusion.losses import LossConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.diffusion.samplers import SAMPLERS
from unclip.rng import Noise


class Network(nn.Module):
    def __init__(self, width: int = 128):
        super().__init__()
        hidden = [layer for _ in range(2) for layer in (nn.Linear(width, width), nn.SiLU())]
        self.layers = nn.Sequential(nn.Linear(26, width), nn.SiLU(), *hidden, nn.Linear(width, 2))

    def forward(self, x, label, condition=None):
        waves = torch.cat([2 * x, 4 * x, 8 * x, label[:, None] / 1000 * 2.0 ** torch.arange(6)], dim=1)
        return self.layers(torch.cat([x, waves.sin(), waves.cos()], dim=1))


def spiral(noise: Noise) -> torch.Tensor:
    turn = 3 * torch.pi * noise.uniform(1).sqrt().float()
    return 0.2 * turn * torch.cat([turn.cos(), turn.sin()], dim=1) + 0.03 * noise.normal(2)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parametrization", default="eps", choices=("eps", "v", "x0"))
    parser.add_argument("--sampler", default="ddpm", choices=tuple(SAMPLERS))
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("out/toy.png"))
    args = parser.parse_args(argv)

    process = ProcessConfig(parametrization=args.parametrization, schedule="cosine")
    model = train(Network(), process, LossConfig(), spiral, args.iterations, 256)
    points = draw(model, (2,), 4000, args.sampler, args.steps)
    apart = torch.cdist(points, spiral(Noise(range(4000)))).min(1).values.mean()
    print(f"mean distance of a sample to the nearest of 4000 data points: {apart:.3f}")
    counts, _, _ = np.histogram2d(*points.T.numpy(), bins=128, range=[[-2.2, 2.2]] * 2)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 - 80 * counts.clip(0, 3)).astype(np.uint8)).resize((512, 512)).save(args.out)


if __name__ == "__main__":
    main()
