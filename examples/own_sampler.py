"""A sampler of your own: Euler-ancestral in ten lines, on the bundled decoder, beside the samplers of the package.

python examples/own_sampler.py "a yellow car, flat style" --steps 20 --out samplers.png
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch

import unclip
from unclip.diffusion.denoiser import Denoiser, NoiseSource, Step, draw, noise_level
from unclip.diffusion.posterior import variance_bounds
from unclip.diffusion.samplers import SAMPLERS, sample
from unclip.images import grid, to_image
from unclip.networks.decoder import Decoder
from unclip.rng import Noise
from unclip.stages.conditioner import Condition
from unclip.stages.renderer import decoder_renderer


def euler_ancestral(denoise: Denoiser, x, sigmas, *, noise: NoiseSource) -> Iterator[Step]:
    """Euler's method to a lower noise level than the next, then noise up to it."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, noise_level(sigma, x)).x0
        up = variance_bounds(sigma, sigma_next)[0].sqrt()
        down = (sigma_next.square() - up.square()).clamp(min=0).sqrt()
        x = x0 + (down / sigma).item() * (x - x0) + up.item() * draw(noise, x)
        yield Step(i, x, x0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="a yellow car, flat style")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("out/samplers.png"))
    args = parser.parse_args(argv)

    model = unclip.load("artwork")
    z_i = model.embed_text(args.prompt).to(model.parts.device)  # in place of an image embedding (figure 8)
    pictures = []
    with model.parts.lend("decoder", Decoder) as decoder, torch.no_grad():
        renderer = decoder_renderer(decoder)
        denoise, levels = renderer.denoiser(Condition(z_i=z_i), guidance=2.5), renderer.grid(args.steps)
        for name, sampler in {"own": euler_ancestral, **SAMPLERS}.items():
            noise = Noise([7])
            x = renderer.noise_state(noise.fork("start"), levels[0], 64, 64, model.parts.device)
            pictures.append(to_image(sample(sampler(denoise, x, levels, noise=noise.fork("steps")))[0]))
            print(name)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    grid(pictures, columns=len(pictures), gap=4).save(args.out)


if __name__ == "__main__":
    main()
