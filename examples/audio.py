"""The diffusion core on sound: an unconditional 1-D model in the form of DiffWave, trained on notes that it makes itself.

python examples/audio.py --iterations 20000 --out out/audio    (the default of 1000 still sounds like noise)
"""

import argparse
import wave
from pathlib import Path

import torch
from diffusion_loop import draw, train
from torch import nn

from unclip.diffusion.losses import LogNormal, LossConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.rng import Noise


class DiffWave(nn.Module):  # gated convolutions whose dilation doubles (arXiv 2009.09761, figure 2)
    def __init__(self, width: int = 32, layers: int = 10):
        super().__init__()
        self.into, self.out = nn.Conv1d(1, width, 1), nn.Conv1d(width, 1, 1)
        self.label = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, layers * width))
        convs = (nn.Conv1d(width, 4 * width, 3, padding=2**i, dilation=2**i) for i in range(layers))
        self.layers = nn.ModuleList(convs)

    def forward(self, x, label, condition=None):
        h, skips = self.into(x), torch.zeros(())
        for conv, shift in zip(self.layers, self.label(label[:, None]).chunk(len(self.layers), dim=1)):
            a, b, c, d = conv(h + shift[..., None]).chunk(4, dim=1)
            h, skips = (h + a.tanh() * b.sigmoid()) / 2**0.5, skips + c.tanh() * d.sigmoid()
        return self.out(skips)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--length", type=int, default=4096, help="in samples, at 8000 a second")
    parser.add_argument("--out", type=Path, default=Path("out/audio"))
    args = parser.parse_args(argv)
    time, harmonics = torch.arange(args.length) / 8000, torch.arange(1, 6)[:, None]

    def plucked(noise: Noise) -> torch.Tensor:  # (b 1 length): notes from 110 to 440 Hz that die away
        pitch = 2 * torch.pi * 110 * 4 ** noise.uniform(1, 1).float()
        waves = (pitch * harmonics * time).sin() * (-3 * harmonics * time).exp()
        return (0.4 * noise.uniform(5, 1).float() * waves).sum(1, keepdim=True)

    edm = ProcessConfig(parametrization="edm", schedule="edm")
    loss = LossConfig(density=LogNormal(), weight="edm")
    model = train(DiffWave(), edm, loss, plucked, args.iterations, 16)
    args.out.mkdir(parents=True, exist_ok=True)
    for index, sound in enumerate(draw(model, (1, args.length), 4, "dpmpp_2m_sde", 30)):
        with wave.open(str(args.out / f"{index}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes((sound[0].clamp(-1, 1) * 32767).short().numpy().tobytes())


if __name__ == "__main__":
    main()
