"""Training cost in floating-point operations per stage, and the number of samples that a device trains in a given time.

    python benchmarks/flops.py [--recipe artwork] [--teraflops 250] [--minutes 25]

The count is of matrix products and convolutions in one forward pass at the stage's real shapes; a training step takes
three times as many (one forward, two backward). `--teraflops` is the rate that the device reaches in such steps, not its
peak: 0.2 to 0.25 on two CPU cores without matrix units, 100 to 300 on a large GPU. The last column is an upper bound:
reading, augmentation and the optimiser are not counted.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unclip import recipes
from unclip.networks.clip import Clip, ClipConfig
from unclip.networks.decoder import Decoder, DecoderCondition, DecoderConfig
from unclip.networks.prior_autoregressive import AutoregressivePrior, AutoregressivePriorConfig
from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig, PriorCondition
from unclip.networks.upsampler import Upsampler, UpsamplerCondition
from unclip.train.config import TrainConfig
from unclip.train.tasks.clip import ClipTraining
from unclip.train.tasks.upsampler import UpsamplerTraining

BATCH = 2
CONTEXT = 24
# Number of components with 99 % of the variance of the bundled CLIP's embeddings.
COMPONENTS = 59


class Cost(NamedTuple):
    """Operations of one sample's forward pass, and the network's parameters."""

    forward: float
    parameters: int


def counted(network: nn.Module, forward: Callable[[], object]) -> Cost:
    """Cost of `forward`, which runs a batch of `BATCH`."""
    with FlopCounterMode(display=False) as counter:
        forward()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(counter.get_total_flops() / BATCH, parameters)


def cost(config: TrainConfig, clip: ClipConfig) -> Cost | None:
    """Cost of a stage, with its sizes fitted to `clip` as in training; None for a stage that is not counted."""
    model, label = config.model, torch.zeros(BATCH)
    keep = torch.ones(BATCH, dtype=torch.bool)
    tokens = torch.ones(BATCH, CONTEXT, dtype=torch.long)
    embedding = torch.zeros(BATCH, clip.embedding)
    if isinstance(config, ClipTraining):
        model = config.model
        text = replace(model.text, vocabulary=config.vocabulary, end=config.vocabulary - 1)
        network, size = Clip(replace(model, text=text)), model.vision.size
        pictures = torch.zeros(BATCH, 3, size, size)
        read = tokens[:, : model.text.context]
        return counted(network, lambda: (network.encode_image(pictures), network.encode_text(read)))
    states = torch.zeros(BATCH, CONTEXT, clip.text.width)
    captions = PriorCondition(embedding, states, tokens.bool(), keep)
    sizes = {"embedding": clip.embedding, "context": CONTEXT, "text_width": clip.text.width}
    if isinstance(model, DiffusionPriorConfig):
        prior = DiffusionPrior(replace(model, **sizes))
        return counted(prior, lambda: prior(embedding, label, captions))
    if isinstance(model, AutoregressivePriorConfig):
        autoregressive = AutoregressivePrior(replace(model, **sizes, dimensions=COMPONENTS))
        codes, dot = torch.zeros(BATCH, COMPONENTS, dtype=torch.long), tokens[:, 0]
        return counted(autoregressive, lambda: autoregressive(codes, dot, captions))
    if isinstance(model, DecoderConfig):
        caption = model.caption and replace(model.caption, vocabulary=4096, context=CONTEXT, end=4095)
        decoder = Decoder(replace(model, embedding=clip.embedding, caption=caption))
        noisy = torch.zeros(BATCH, 3, model.size, model.size)
        given = DecoderCondition(embedding, tokens, keep, keep)
        return counted(decoder, lambda: decoder(noisy, label, decoder.encode(given)))
    if isinstance(config, UpsamplerTraining):
        upsampler = Upsampler(config.model)
        crop = torch.zeros(BATCH, 3, config.crop_size, config.crop_size)
        return counted(upsampler, lambda: upsampler(crop, label, UpsamplerCondition(crop, label)))
    return None


def main() -> None:
    """Print one line per stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="artwork")
    parser.add_argument("--teraflops", type=float, default=250.0)
    parser.add_argument("--minutes", type=float, default=25.0)
    arguments = parser.parse_args()
    clip = recipes.get(arguments.recipe, "clip").model
    assert isinstance(clip, ClipConfig)
    out = sys.stdout.write
    out(
        f"{'stage':21}{'parameters':>12}{'GFLOP/sample':>14}{'recipe':>10}{'PFLOP':>8}{'share':>8}{'samples':>13}\n"
    )
    for name, share in recipes.CHAINS[arguments.recipe].items():
        beside = recipes.beside(arguments.recipe)
        config = beside[name]() if name in beside else recipes.get(arguments.recipe, name)
        found = cost(config, clip)
        if found is None:
            continue
        step = 3 * found.forward
        fit = share * arguments.minutes * 60 * arguments.teraflops * 1e12 / step
        out(
            f"{name:21}{found.parameters / 1e6:>10.1f} M{step / 1e9:>14.2f}{config.samples:>10,}"
            f"{step * config.samples / 1e15:>8.2f}{share:>8.2f}{fit:>13,.0f}\n"
        )


if __name__ == "__main__":
    main()
