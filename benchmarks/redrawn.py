"""An upsampler that learns from what the decoder draws, not only from clean pictures made smaller.

    python benchmarks/redrawn.py redraw --clip RUN --decoder RUN --data LARGE --out redrawn.pt [--count 800]
    python benchmarks/redrawn.py train --init MODEL --data LARGE --redrawn redrawn.pt --out RUN --budget 25m

`redraw` hides each small drawing in noise (flow time 0.7) and lets the decoder draw it again from its embedding and
caption: the shape stays nearly where it was, and edges and flat areas become the decoder's. `train` goes on with an
upsampler on the large drawings; the small pictures of a share of its samples are the redrawn ones. RUN and MODEL are
folders that hold a finished run, or its model; LARGE is a set of 256 px (`unclip data artwork LARGE`).
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from unclip import recipes
from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest
from unclip.cli.options import duration
from unclip.data.dataset import open_dataset
from unclip.data.degradation import reduce
from unclip.diffusion.samplers import SAMPLERS, sample
from unclip.images import from_uint8, to_uint8
from unclip.networks.clip import Clip
from unclip.networks.decoder import Decoder, DecoderCondition
from unclip.networks.upsampler import Upsampler
from unclip.rng import Noise
from unclip.stages.renderer import decoder_renderer
from unclip.tokenizers.clip import ClipTokenizer
from unclip.train import budget
from unclip.train.config import TrainConfig
from unclip.train.task import Built
from unclip.train.tasks.upsampler import CropBatch, CropBatches, UpsamplerTask, UpsamplerTraining

FACTOR = 4
#: How far back into noise a drawing goes, give or take; in so many steps it is drawn again, without guidance.
TIME, SPREAD, STEPS = 0.7, 0.125, 4
BATCH = 16


def redraw(
    clip: Clip,
    decoder: Decoder,
    tokenizer: ClipTokenizer,
    pictures: Float[Tensor, "b 3 h w"],
    captions: list[str],
    noise: Noise,
    time: float,
) -> Float[Tensor, "b 3 h w"]:
    """The small pictures as the decoder draws them when it begins with what is left of them at a flow time."""
    device = pictures.device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        keep = torch.ones(len(pictures), dtype=torch.bool, device=device)
        z, tokens = clip.encode_image(pictures).float(), tokenizer.encode(captions).to(device)
        denoise = decoder_renderer(decoder).denoiser(DecoderCondition(z, tokens, keep, keep), guidance=1.0)
        times = torch.linspace(time, 0, STEPS + 1, dtype=torch.float64)
        sigmas = times / (1 - times)
        x = pictures + float(sigmas[0]) * noise.fork("start").normal(*pictures.shape[1:]).to(device)
        return sample(SAMPLERS["dpmpp_2m"](denoise, x, sigmas, noise=noise)).float().clamp(-1, 1)


def redraw_all(arguments: argparse.Namespace) -> None:
    """Redraw some of the training drawings; a file of key -> picture."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clip, decoder = (
        load_part(_model(folder), read_manifest(_model(folder)), part, device=device).eval()
        for folder, part in ((arguments.clip, "clip"), (arguments.decoder, "decoder"))
    )
    assert isinstance(clip, Clip)
    assert isinstance(decoder, Decoder)
    tokenizer = ClipTokenizer.from_json((_model(arguments.clip) / "tokenizer.json").read_text())
    data = open_dataset(arguments.data, "train")
    draw = np.random.default_rng(0)
    chosen = draw.permutation(len(data))[: arguments.count]
    found: dict[str, UInt8[Tensor, "3 h w"]] = {}
    for start in tqdm(range(0, len(chosen), BATCH)):
        indices = [int(index) for index in chosen[start : start + BATCH]]
        large = torch.stack([torch.from_numpy(data.picture(index, None)) for index in indices])
        small = F.avg_pool2d(from_uint8(large), FACTOR).to(device)
        captions = [data.info(index).captions[0] for index in indices]
        time = TIME + SPREAD * draw.uniform(-1, 1)
        drawn = redraw(clip, decoder, tokenizer, small, captions, Noise(indices), time)
        found |= {data.keys()[index]: picture for index, picture in zip(indices, to_uint8(drawn.cpu()))}
    torch.save(found, arguments.out)


class RedrawnBatches(CropBatches):
    """The upsampler's crops, with redrawn small pictures in a share of the samples that have one."""

    share = 0.7

    def __init__(
        self, config: UpsamplerTraining, device: torch.device, redrawn: dict[str, UInt8[Tensor, "3 h w"]]
    ):
        super().__init__(config, device)
        self.redrawn = redrawn

    def batch(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> CropBatch:
        """One crop of each sample with these numbers."""
        batch, factor = super().batch(numbers, noise), self.config.model.factor
        small = reduce(batch.windows, noise, factor, self.config.degradation)
        taken = noise.fork("redrawn").uniform() < self.share
        side = batch.crops.side // factor
        for row, index in enumerate(self.train.indices(numbers)):
            picture = self.redrawn.get(self.train.decoded.samples[index].key)
            if picture is not None and taken[row]:
                down, right = (batch.crops.corner[row] // factor).tolist()
                small[row] = from_uint8(picture[:, down : down + side, right : right + side]).to(small)
        return replace(batch, small=small)


def train(arguments: argparse.Namespace) -> None:
    """Go on with an upsampler's weights."""
    config = recipes.get(arguments.recipe, "upsampler")
    old = config.optimizer
    config = replace(
        config,
        data=replace(config.data, path=str(arguments.data)),
        out=str(arguments.out),
        init=str(_model(arguments.init)),
        batch=32,
        ema_decay=0.998,
        optimizer=replace(old, learning_rate=old.learning_rate / 2, decay=0.6),
        checkpoint_seconds=300.0,
    )
    redrawn = torch.load(arguments.redrawn)

    def build(config: TrainConfig, device: torch.device) -> Built:
        assert isinstance(config, UpsamplerTraining)
        network = Upsampler(config.model).to(device)
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return Built(UpsamplerTask(config, network, device), RedrawnBatches(config, device, redrawn))

    budget.build_task = build
    budget.train_within(config, arguments.budget)


def _model(folder: Path) -> Path:
    return folder / "model" if (folder / "model" / "model.json").exists() else folder


def main() -> None:
    """Redraw or train, as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    drawing, training = verbs.add_parser("redraw"), verbs.add_parser("train")
    for verb in (drawing, training):
        verb.add_argument("--data", type=Path, required=True)
        verb.add_argument("--out", type=Path, required=True)
    drawing.add_argument("--clip", type=Path, required=True)
    drawing.add_argument("--decoder", type=Path, required=True)
    drawing.add_argument("--count", type=int, default=800)
    drawing.set_defaults(run=redraw_all)
    training.add_argument("--recipe", default="artwork")
    training.add_argument("--init", type=Path, required=True)
    training.add_argument("--redrawn", type=Path, required=True)
    training.add_argument("--budget", type=duration, default=1500.0)
    training.set_defaults(run=train)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
