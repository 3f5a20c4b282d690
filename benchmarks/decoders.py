"""Benchmark of decoders at equal training cost: networks, parametrisations, loss weights, optimisers.

    python benchmarks/decoders.py --data SHARDS --clip runs/artwork/clip --judge runs/artwork/judge --out runs/decoders

Each trial is a smaller variant of the artwork recipe's decoder (see `trials`). All are trained with the same number of
floating-point operations (`--teraflop`, counted by benchmarks/flops.py) on the same order of drawings. A trial that is
finished in `--out` is not trained again. With the *true* embeddings and captions of drawings, the metrics are:

- the held-out error of x0 with the velocity's weight at the same eight noise levels, whatever the network predicts;
- for pictures of training drawings of everyday things, and of held-out drawings (16 steps, guidance 2): the mean cosine
  with those drawings in the judge's features, and the Fréchet distance to them.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from flops import cost
from jaxtyping import Float, Int64
from torch import Tensor

from unclip import config as configs
from unclip import recipes
from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest
from unclip.datasets.artwork.everyday import is_everyday
from unclip.diffusion.losses import LogitNormal, LogNormal, LossConfig, UniformTime
from unclip.diffusion.parametrization import Preconditioned, ProcessConfig
from unclip.diffusion.samplers import sample
from unclip.evaluate.distances import frechet
from unclip.evaluate.features import Encoder
from unclip.images import to_uint8
from unclip.networks.clip import ClipConfig
from unclip.networks.decoder import Decoder, DecoderCondition
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.unet import UnetConfig
from unclip.rng import Noise
from unclip.stages.renderer import decoder_renderer
from unclip.train.loop import train
from unclip.train.run_folder import with_precision
from unclip.train.source import Source, evenly_spaced
from unclip.train.tasks.decoder import DecoderBatches, DecoderTraining
from unclip.train.tasks.levels import losses_at_levels

DRAWN = 128
COMMON = LossConfig(density=LogitNormal(mean=0.8, std=0.8), weight="velocity")
FLOW, COSINE = "flow", "cosine"


class Measured(NamedTuple):
    """Metrics of a trial."""

    error: float
    seen: float
    held_out: float
    frechet_seen: float
    frechet_held_out: float


def base() -> DecoderTraining:
    """The artwork recipe's decoder at a quarter of its cost."""
    config = recipes.get("artwork", "decoder")
    assert isinstance(config, DecoderTraining)
    assert config.model.caption is not None
    net = PatchTransformerConfig(
        in_channels=7, size=64, patch=8, width=192, layers=8, head_channels=64, context_width=128
    )
    model = replace(
        config.model, net=net, caption=replace(config.model.caption, width=128, layers=1, heads=2)
    )
    return replace(config, model=model, batch=64)


def with_model(config: DecoderTraining, **changes: Any) -> DecoderTraining:
    """Config with changes to the decoder."""
    return replace(config, model=replace(config.model, **changes))


def with_net(config: DecoderTraining, **changes: Any) -> DecoderTraining:
    """Config with changes to the decoder's network."""
    return with_model(config, net=replace(config.model.net, **changes))


def with_unet(config: DecoderTraining, attention_levels: tuple[int, ...], **sizes: Any) -> DecoderTraining:
    """Config with a U-Net, trained with AdamW, as Muon does not apply to convolutions."""
    net = UnetConfig(
        in_channels=7,
        out_channels=3,
        resample="conv",
        norm="rms",
        head_channels=32,
        context_width=128,
        vector_width=256,
        attention_levels=attention_levels,
        **sizes,
    )
    return with_model(with_adamw(config), net=net)


def with_adamw(config: DecoderTraining) -> DecoderTraining:
    """Config with AdamW for all weights."""
    return replace(config, optimizer=replace(config.optimizer, muon_learning_rate=None))


def predicting(
    config: DecoderTraining, parametrization: str, schedule: str, loss: LossConfig
) -> DecoderTraining:
    """Config with another noise process and its loss."""
    process = configs.from_dict(ProcessConfig, {"parametrization": parametrization, "schedule": schedule})
    return replace(with_model(config, process=process), loss=loss)


def trials() -> dict[str, DecoderTraining]:
    """Trials, each to be compared with the first; U-Nets, which Muon cannot train, with "AdamW"."""
    start = base()
    uniform = LossConfig(density=UniformTime(), weight="target")
    return {
        "patches 8x8, x0, Muon": start,
        "AdamW": with_adamw(start),
        "patches 4x4, narrower": with_net(start, patch=4, width=128, layers=4),
        "U-Net, attention at 8x8": with_unet(
            start, (2,), channels=32, multiples=(1, 2, 4), blocks=1, patch=2
        ),
        "U-Net, attention at 16x16 and 8x8": with_unet(
            start, (1, 2), channels=32, multiples=(1, 2, 4), blocks=1, patch=2
        ),
        "velocity (flow)": predicting(start, "flow", FLOW, COMMON),
        "v, cosine": predicting(start, "v", COSINE, uniform),
        "eps, cosine": predicting(start, "eps", COSINE, uniform),
        "EDM": predicting(start, "edm", "edm", LossConfig(density=LogNormal(), weight="edm")),
        "x0, min-SNR": replace(start, loss=replace(COMMON, weight="min_snr")),
        "uncertainty weighting": replace(start, uncertainty=True),
        "augmentation as a condition": with_model(start, augmentation=5),
        "short average, 10 steps": replace(start, ema_decay=0.9),
    }


def folder_of(name: str) -> str:
    """Folder name of a trial."""
    return "-".join("".join(one if one.isalnum() else " " for one in name).lower().split())


def everyday(source: Source, count: int) -> Int64[np.ndarray, " n"]:
    """Rows of single drawings of everyday things, evenly spaced."""
    metas = [one.meta for one in source.decoded.samples]
    rows = np.array([row for row, meta in enumerate(metas) if meta["kind"] == "plain" and is_everyday(meta)])
    return rows[evenly_spaced(count, len(rows))]


def redrawn(network: Decoder, condition: DecoderCondition) -> Float[Tensor, "n 3 h w"]:
    """Pictures of a condition (16 steps, guidance 2)."""
    renderer = decoder_renderer(network)
    denoise = renderer.denoiser(condition, guidance=2.0)
    noise = Noise(range(len(condition.keep_image))).fork("decoder")
    steps = renderer.sample_from_noise(
        denoise,
        noise,
        size=network.config.size,
        steps=16,
        sampler="dpmpp_2m",
        device=condition.image_embedding.device,
    )
    return renderer.codec.decode(sample(steps))


@torch.inference_mode()
def measure(batches: DecoderBatches, network: Decoder, judge: Encoder) -> Measured:
    """Metrics of a trained trial."""
    process = network.config.process.build()
    held_out = batches.held_out_pictures(DRAWN)
    context = network.encode(held_out.condition)
    denoiser = Preconditioned(network, process)
    error = losses_at_levels(denoiser, held_out.pictures, context, COMMON, process)["loss"]
    cosines, distances = [], []
    for source, embeddings, some in (
        (batches.train, batches.train_embeddings, everyday(batches.train, DRAWN)),
        (batches.held_out, batches.held_out_embeddings, evenly_spaced(DRAWN, len(batches.held_out))),
    ):
        drawn = redrawn(
            network, batches._of(source.pictures(some), embeddings[some], source.captions(some)).condition
        )
        features, real = (judge.pictures(to_uint8(one)) for one in (drawn, source.pictures(some)))
        cosines.append((features * real).sum(1).mean().item())
        distances.append(frechet(real, features))
    return Measured(error, *cosines, *distances)


def run(names: Iterable[str], arguments: argparse.Namespace) -> None:
    """Train and measure trials one after the other, and write a line for each when it is finished."""
    write = sys.stdout.write
    write("| trial | M parameters | GFLOP/sample | samples | s | error of x0 | cosine, seen | held out |")
    write(" Fréchet, seen | held out |\n|---|" + "---:|" * 9 + "\n")
    judge = Encoder.load(arguments.judge)
    clip = recipes.get("artwork", "clip").model
    assert isinstance(clip, ClipConfig)
    for name in names:
        config = trials()[name]
        found = cost(config, clip)
        assert found is not None
        samples = int(arguments.teraflop * 1e12 / (3 * found.forward)) // config.batch * config.batch
        out = arguments.out / folder_of(name)
        data = replace(config.data, path=str(arguments.data), cache=arguments.cache)
        length = {"samples": samples, "validate_every": samples, "preview_every": samples}
        config = replace(config, data=data, out=str(out), clip=str(arguments.clip), **length)
        config = with_precision(config, torch.device("cpu"))
        start = time.perf_counter()
        folder = train(config)
        seconds = time.perf_counter() - start
        network = load_part(folder, read_manifest(folder), "decoder")
        assert isinstance(network, Decoder)
        measured = measure(DecoderBatches(config, torch.device("cpu")), network.eval(), judge)
        cells = [f"{found.parameters / 1e6:.1f}", f"{3 * found.forward / 1e9:.2f}", f"{samples:,}"]
        cells += [f"{seconds:.0f}", f"{measured.error:.4f}", *(f"{one:.3f}" for one in measured[1:])]
        write(f"| {name} | {' | '.join(cells)} |\n")
        sys.stdout.flush()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="shards of `unclip data artwork`")
    parser.add_argument("--cache", help="where decoded pictures are kept (default: beside the runs)")
    parser.add_argument("--clip", type=Path, required=True, help="the run folder of the CLIP stage")
    parser.add_argument("--judge", type=Path, required=True, help="the run folder of the judge")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trials' runs")
    parser.add_argument("--teraflop", type=float, default=16.0, help="of each trial (default: 16)")
    parser.add_argument("--only", nargs="+", choices=trials(), metavar="TRIAL", help="some of the trials")
    arguments = parser.parse_args()
    run(arguments.only or list(trials()), arguments)


if __name__ == "__main__":
    main()
