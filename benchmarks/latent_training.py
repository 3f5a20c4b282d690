"""Latents against pixels at equal training cost: an autoencoder and two decoders, measured by a judge.

    python benchmarks/latent_training.py train --data SHARDS --out runs/latents
    python benchmarks/latent_training.py measure --data SHARDS --out runs/latents

SHARDS are drawings of 256 px (`unclip data artwork SHARDS --recolours 0 --pairs 0 --augmented 0`). Trained are the recipe
`artwork_latent`'s autoencoder, a judge, and two decoders that are given the same embeddings by the bundled model's CLIP and
the same captions: one learns latents of 256 px, the other pixels of 64 px, which the bundled upsampler enlarges. Both are
the same transformer on 64 tokens. Times are processor time of the training process, so that a busy machine distorts
nothing; a decoder's does not include the encoding of the data set. `--only` trains some of the runs, so that two processes
may share the work, and the same command goes on where it stopped.

`measure` prints two tables. The autoencoder and the bundled upsampler (of the drawings reduced to 64 px) make drawings of
256 px again, none of which was trained on: PSNR, distance in the judge's features, and crispness, the mean absolute
Laplacian of the luminance over that of the originals. The decoders draw training drawings of everyday things and held-out
ones from their true embeddings and captions (16 steps, guidance 2): the mean cosine with those drawings in the judge's
features, and the Fréchet distance to them.
"""

import argparse
import json
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from decoders import base, everyday, with_model, with_net
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

import unclip
from unclip import recipes
from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest
from unclip.cli.options import duration
from unclip.data.dataset import open_dataset
from unclip.diffusion.losses import LogitNormal
from unclip.diffusion.samplers import sample
from unclip.evaluate.distances import frechet
from unclip.evaluate.features import Encoder
from unclip.evaluate.perceptual import perceptual_distance
from unclip.evaluate.upsampling import evenly_spaced as some_pictures
from unclip.images import from_uint8, grid, resize, to_image, to_tensor, to_uint8
from unclip.networks.decoder import Decoder, DecoderCondition
from unclip.rng import Noise
from unclip.stages.likeness import psnr
from unclip.stages.renderer import decoder_renderer
from unclip.train.budget import train_within
from unclip.train.config import TrainConfig, read_config
from unclip.train.latents import AutoencoderRun
from unclip.train.loop import train as train_runs
from unclip.train.source import Source, evenly_spaced
from unclip.train.tasks.autoencoder import AutoencoderTraining
from unclip.train.tasks.decoder import DecoderBatches, DecoderTraining, LatentDecoderTraining

BUNDLED = "artwork"
LARGE, SMALL = 256, 64
RUNS = ("autoencoder", "judge", "latents", "pixels")
#: The latent's share of a token: 64 tokens of 4 x 4 latents, as many as of 8 x 8 pixels.
PATCH = 4


def autoencoder() -> AutoencoderTraining:
    """The recipe's, with a discriminator for the last third."""
    config = recipes.get("artwork_latent", "autoencoder")
    assert isinstance(config, AutoencoderTraining)
    return replace(config, discriminator_start=config.samples * 2 // 3)


def pixels() -> DecoderTraining:
    """The smaller decoder of benchmarks/decoders.py: 64 tokens of 8 x 8 pixels."""
    config = base()
    return replace(config, data=replace(config.data, factors={"everyday": {"false": 0.1}}))


def latents(channels: int, factor: int) -> LatentDecoderTraining:
    """The same net on as many tokens of a latent."""
    config = with_net(
        pixels(), in_channels=2 * channels + 1, out_channels=channels, size=LARGE // factor, patch=PATCH
    )
    config = with_model(config, size=LARGE, channels=channels, factor=factor)
    given = {one.name: getattr(config, one.name) for one in fields(config) if one.name != "stage"}
    found = LatentDecoderTraining(**given)
    loss = replace(found.loss, density=LogitNormal(mean=0.0, std=1.0))
    return replace(found, loss=loss, data=replace(found.data, size=LARGE))


def runs(arguments: argparse.Namespace) -> dict[str, tuple[TrainConfig, float]]:
    """Name -> config and seconds of processor time."""
    first = autoencoder()
    model = first.model
    found: dict[str, tuple[TrainConfig, float]] = {
        "autoencoder": (replace(first, clip=BUNDLED), arguments.autoencoder),
        "judge": (recipes.judge.clip(), arguments.judge),
        "latents": (
            replace(
                latents(model.latent_channels, model.factor),
                clip=BUNDLED,
                autoencoder=str(arguments.out / "autoencoder"),
            ),
            arguments.decoder,
        ),
        "pixels": (replace(pixels(), clip=BUNDLED), arguments.decoder),
    }
    cache = str(arguments.out / "cache")
    return {
        name: (
            replace(
                config,
                out=str(arguments.out / name),
                data=replace(config.data, path=str(arguments.data), cache=cache),
                # Autocast to bfloat16 where it is quicker, the same for both decoders.
                checkpoint_seconds=120.0,
            ),
            seconds,
        )
        for name, (config, seconds) in found.items()
    }


def train(arguments: argparse.Namespace) -> None:
    """Train the runs that are not finished, each for its processor time."""
    for name, (config, seconds) in runs(arguments).items():
        if name not in arguments.only:
            continue
        if isinstance(config, LatentDecoderTraining):
            # Encoding comes before the time that is compared; its own time is written beside it.
            began, cache = time.process_time(), arguments.out / "latents"
            coder = AutoencoderRun(config.autoencoder, config.stage, torch.device("cpu"))
            for part in ("train", "validation"):
                coder.latents(Source(config, part, torch.device("cpu")), cache)
            say(f"encoding: {time.process_time() - began:.0f} s")
        began = time.process_time()
        if arguments.smoke:
            train_runs(replace(config, **dict.fromkeys(config.OF_LENGTH, 2 * config.batch)), device="cpu")
        else:
            train_within(config, seconds, device="cpu", clock=time.process_time)
        say(f"{name}: {time.process_time() - began:.0f} s of processor time, {length(config)} samples")


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def length(config: TrainConfig) -> str:
    """The samples of a run in its folder."""
    return f"{json.loads((Path(config.out) / 'config.json').read_text())['samples']:,}"


def crispness(pictures: Float[Tensor, "n 3 h w"]) -> float:
    """Mean absolute Laplacian of the luminance."""
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    grey = (pictures * weights).sum(1, keepdim=True)
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    return F.conv2d(grey, kernel).abs().mean().item()


def made_again(arguments: argparse.Namespace, judge: Encoder) -> None:
    """The table of what makes drawings of 256 px again."""
    held_out = [open_dataset(arguments.data, split) for split in ("val", "heldout-style")]
    found = [some_pictures(one, arguments.count // 2, LARGE) for one in held_out]
    real = from_uint8(torch.cat([one for one in found if one is not None]))
    coder = AutoencoderRun(str(arguments.out / "autoencoder"), "measure", torch.device("cpu"))
    model = unclip.load(BUNDLED)
    small = [resize(to_image(one), SMALL) for one in real]
    with torch.no_grad():
        rebuilt = torch.cat([coder.codec.decode(coder.codec.encode(one)) for one in real.split(8)])
    numbers = coder.config.latent_channels * (LARGE // coder.config.factor) ** 2
    made = {
        f"autoencoder, {numbers:,} numbers": rebuilt,
        f"bundled upsampler, {3 * SMALL**2:,} numbers": torch.stack(
            [to_tensor(model.upscale(one, size=LARGE, seed=seed).image) for seed, one in enumerate(small)]
        ),
        f"bicubic, {3 * SMALL**2:,} numbers": torch.stack([to_tensor(resize(one, LARGE)) for one in small]),
    }
    say(f"{len(real)} held-out drawings of {LARGE} px\n")
    say("| made by | PSNR, dB | distance by the judge | crispness |\n|---|---:|---:|---:|")
    for name, pictures in made.items():
        decibels = sum(psnr(one, other) for one, other in zip(pictures, real)) / len(real)
        apart = perceptual_distance(judge, pictures, real).mean().item()
        say(f"| {name} | {decibels:.2f} | {apart:.4f} | {crispness(pictures) / crispness(real):.3f} |")
    shown = [row[i] for row in (real, *made.values()) for i in range(0, len(real), -(-len(real) // 8))]
    grid([to_image(one) for one in shown], columns=8).save(arguments.out / "again.png")


class Drawn(NamedTuple):
    """Pictures of 256 px, and those by which they are judged: of 64 px."""

    large: Float[Tensor, "n 3 h w"]
    small: Float[Tensor, "n 3 s s"]
    seconds: float
    """Processor time of one, at 256 px."""


@torch.inference_mode()
def draw(batches: DecoderBatches, network: Decoder, condition: DecoderCondition, model: Any) -> Drawn:
    """Pictures of a condition (16 steps, guidance 2)."""
    began = time.process_time()
    codec = batches.images.codec
    renderer = decoder_renderer(network, codec)
    count = len(condition.keep_image)
    steps = renderer.sample_from_noise(
        renderer.denoiser(condition, guidance=2.0),
        Noise(range(count)).fork("decoder"),
        size=network.config.size,
        steps=16,
        sampler="dpmpp_2m",
        device=condition.image_embedding.device,
    )
    pictures = torch.cat([codec.decode(some) for some in sample(steps).split(8)])
    if codec.factor == 1:
        large = [model.upscale(to_image(one), size=LARGE, seed=seed) for seed, one in enumerate(pictures)]
        seconds = (time.process_time() - began) / count
        return Drawn(torch.stack([to_tensor(one.image) for one in large]), pictures, seconds)
    seconds = (time.process_time() - began) / count
    small = torch.stack([to_tensor(resize(to_image(one), SMALL)) for one in pictures])
    return Drawn(pictures, small, seconds)


def decoders(arguments: argparse.Namespace, judge: Encoder) -> None:
    """The table of both decoders."""
    model = unclip.load(BUNDLED)
    say(
        "\n| decoder | set | cosine | Fréchet | crispness at 256 px | s a picture |\n|---|---|---:|---:|---:|---:|"
    )
    rows: list[Tensor] = []
    for name in ("latents", "pixels"):
        folder = arguments.out / name
        config = read_config(json.loads((folder / "config.json").read_text()))
        assert isinstance(config, DecoderTraining)
        network = load_part(folder / "model", read_manifest(folder / "model"), "decoder")
        assert isinstance(network, Decoder)
        batches = DecoderBatches(config, torch.device("cpu"))
        for title, source, embeddings, some in (
            ("seen", batches.train, batches.train_embeddings, everyday(batches.train, arguments.count)),
            (
                "held out",
                batches.held_out,
                batches.held_out_embeddings,
                evenly_spaced(arguments.count, len(batches.held_out)),
            ),
        ):
            real = source.pictures(some)
            condition = batches._of(real, embeddings[some], source.captions(some)).condition
            drawn = draw(batches, network.eval(), condition, model)
            small = real
            if real.shape[-1] != SMALL:
                small = torch.stack([to_tensor(resize(to_image(one), SMALL)) for one in real])
            features, others = (judge.pictures(to_uint8(one)) for one in (drawn.small, small))
            cells = [f"{(features * others).sum(1).mean().item():.3f}", f"{frechet(others, features):.3f}"]
            crisp = crispness(drawn.large) / originals(arguments, title, some)
            say(f"| {name} | {title} | {' | '.join(cells)} | {crisp:.3f} | {drawn.seconds:.2f} |")
            rows += [*([] if name == "pixels" else [small[:12]]), drawn.small[:12]]
    # Real, latents; the same held out; then pixels of both.
    ordered = [rows[0], rows[1], rows[4], rows[2], rows[3], rows[5]]
    pictures = [to_image(one) for row in ordered for one in row]
    grid(pictures, columns=12).save(arguments.out / "drawn.png")


def originals(arguments: argparse.Namespace, title: str, some: np.ndarray) -> float:
    """Crispness of the drawings themselves at 256 px."""
    config = read_config(json.loads((arguments.out / "latents" / "config.json").read_text()))
    part = "train" if title == "seen" else "validation"
    return crispness(Source(config, part, torch.device("cpu")).pictures(some))


def measure(arguments: argparse.Namespace) -> None:
    """Print the tables."""
    for name in RUNS:
        lines = [json.loads(line) for line in (arguments.out / name / "metrics.jsonl").open()]
        last = {key: value for line in lines for key, value in line.items() if key.startswith("validation")}
        say(f"{name}: {lines[-1]['samples']:,} samples, {last}")
    judge = Encoder.load(arguments.out / "judge")
    made_again(arguments, judge)
    decoders(arguments, judge)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("--data", type=Path, required=True, help="shards of 256 px")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=RUNS, help="some of the runs")
    parser.add_argument("--autoencoder", type=duration, default=1800.0, help="processor time (default: 30m)")
    parser.add_argument("--judge", type=duration, default=600.0, help="processor time (default: 10m)")
    parser.add_argument("--decoder", type=duration, default=1200.0, help="of each decoder (default: 20m)")
    parser.add_argument("--count", type=int, default=128, help="pictures that are measured (default: 128)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="two batches of each, to see whether it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    {"train": train, "measure": measure}[arguments.what](arguments)


if __name__ == "__main__":
    main()
