"""Maker of the files beside it: models of format 1 with random weights, and pictures drawn by them with version 0.1.

Runs only with the code of version 0.1, for whose files later versions keep readers:

    git worktree add /tmp/unclip-0.1 6bf6554
    PYTHONPATH=/tmp/unclip-0.1/src OMP_NUM_THREADS=1 python tests/pins/v0_1/make.py
"""

# ruff: noqa: I001 (the modules are those of version 0.1, which ruff does not find here)

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import nn

from unclip.checkpoints.io import save_model
from unclip.checkpoints.manifest import read_manifest
from unclip.cli.main import main
from unclip.config import to_dict
from unclip.diffusion.parametrization import ProcessConfig
from unclip.generate.settings import Settings
from unclip.models.clip import Clip, ClipConfig, TextConfig, VisionConfig
from unclip.models.decoder import CaptionConfig, Decoder, DecoderConfig
from unclip.models.patch_transformer import PatchTransformerConfig
from unclip.models.prior_autoregressive import AutoregressivePrior, AutoregressivePriorConfig, dot_product
from unclip.models.prior_diffusion import DiffusionPrior, DiffusionPriorConfig
from unclip.models.unet import UnetConfig
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.tokenizers.clip import ClipTokenizer

HERE = Path(__file__).resolve().parent
FLOW = ProcessConfig(parametrization="x0", schedule="flow")
CAPTIONS = ["a red apple", "a blue cat", "two green cars", "flat style", "noto style"]
DIMENSIONS = 6

# Each picture's model, sources in the order of its recipe, and command line without output.
PICTURES: dict[str, tuple[str | None, list[str], str]] = {
    "generate": ("tiny", [], "generate 'a red apple' --seed 1"),
    "generate-negative": (
        "tiny",
        [],
        "generate 'a red apple' --negative 'a blue cat' --seed 2 --candidates 1 --prior-guidance 4",
    ),
    "generate-autoregressive": ("tiny", [], "generate 'a blue cat' --seed 3 --prior autoregressive"),
    "generate-text": (
        "tiny",
        [],
        "generate 'two green cars' --seed 4 --prior text --sampler euler --size 16",
    ),
    "generate-none": ("tiny", [], "generate 'a red apple' --seed 5 --prior none --sampler heun"),
    "generate-fast": ("tiny", [], "generate 'a red apple' --seed 6 --fast"),
    "generate-second-upsampler": ("tiny", [], "generate 'a blue cat' --seed 7 --size 64"),
    "generate-diffusers": (
        "tiny",
        [],
        "generate 'a red apple' --seed 8 --random diffusers --candidates 1 --sampler ancestral",
    ),
    "generate-second-picture": ("tiny", [], "generate 'a red apple' -n 2 --seed 9 --size 16"),
    "redraw": ("tiny", ["cat"], "generate 'a blue cat' --init cat.png --strength 0.5 --steps 6 --seed 10"),
    "vary": ("tiny", ["cat"], "vary cat.png -n 1 --seed 11"),
    "vary-eta": ("tiny", ["cat"], "vary cat.png -n 1 --eta 0.5 --steps 3 --seed 12"),
    "reconstruct": ("tiny", ["cat"], "reconstruct cat.png --steps 3 --seed 13"),
    "interpolate": ("tiny", ["cat", "apple"], "interpolate cat.png apple.png -n 2 --steps 3 --seed 14"),
    "interpolate-strip": (
        "tiny",
        ["cat", "apple"],
        "interpolate cat.png apple.png -n 3 --steps 3 --noise fixed --seed 15",
    ),
    "text-diff": (
        "tiny",
        ["cat"],
        "diff cat.png 'a red apple' --source 'a blue cat' -n 2 --maximum 1 --steps 3 --seed 16",
    ),
    "text-diff-strip": (
        "tiny",
        ["cat"],
        "diff cat.png 'a red apple' -n 3 --maximum 1 --steps 3 --size 16 --seed 17",
    ),
    "edit-box": ("tiny", ["cat"], "edit cat.png 'a blue cat' --box 8,8,24,26 --seed 18"),
    "edit-mask": ("tiny", ["cat", "mask"], "edit cat.png 'a red apple' --mask mask.png --seed 19"),
    "edit-transparent": ("tiny", ["hole"], "edit hole.png 'a red apple' --seed 20 --prior autoregressive"),
    "outpaint": ("tiny", ["apple"], "outpaint apple.png --left 8 --seed 21"),
    "outpaint-prompt": ("tiny", ["apple"], "outpaint apple.png 'a red apple' --right 4 --top 6 --seed 22"),
    "upscale": ("tiny", ["small"], "upscale small.png --seed 23"),
    "upscale-size": ("tiny", ["small"], "upscale small.png --size 40 --steps 2 --seed 24"),
    "pca-model": ("tiny", ["cat"], "reconstruct cat.png --dimensions 3 --seed 25"),
    "pca-strip": (
        "tiny",
        ["cat", "apple", "cat", "small"],
        "reconstruct cat.png --dimensions 1,2 --basis basis --size 16 --seed 26",
    ),
    "unet-generate": ("unet", [], "generate 'a red apple' --seed 27"),
    "unet-vary-eta": ("unet", ["apple"], "vary apple.png -n 1 --eta 1 --steps 3 --seed 28"),
    "unet-edit": ("unet", ["cat"], "edit cat.png 'a blue cat' --box 0,0,16,32 --seed 29"),
}


def make_clip(tokenizer: ClipTokenizer) -> Clip:
    """A CLIP of 16 px pictures, one layer deep."""
    text = {"vocabulary": tokenizer.vocabulary, "context": tokenizer.context, "end": tokenizer.end}
    return Clip(
        ClipConfig(
            embedding=16,
            vision=VisionConfig(size=16, patch=4, width=32, layers=1, heads=2),
            text=TextConfig(**text, width=32, layers=1, heads=2),
        )
    )


def make_prior(clip: Clip) -> DiffusionPrior:
    """A diffusion prior for that CLIP."""
    text = clip.config.text
    return DiffusionPrior(
        DiffusionPriorConfig(
            embedding=16, context=text.context, text_width=text.width, width=32, layers=1, heads=2
        )
    )


def make_prior_autoregressive(clip: Clip) -> AutoregressivePrior:
    """An autoregressive prior for that CLIP, its codes fitted to random embeddings."""
    text = clip.config.text
    prior = AutoregressivePrior(
        AutoregressivePriorConfig(
            embedding=16,
            context=text.context,
            text_width=text.width,
            dimensions=DIMENSIONS,
            buckets=9,
            dot_buckets=4,
            width=16,
            layers=1,
            heads=2,
        )
    )
    z = nn.functional.normalize(torch.randn(100, 16), dim=1)
    prior.fit(z, dot_product(z, z.roll(1, 0)))
    return prior


def make_decoder(clip: Clip, net: PatchTransformerConfig | UnetConfig, **more: object) -> Decoder:
    """A decoder of 16 px pictures for that CLIP."""
    text = clip.config.text
    caption = CaptionConfig(
        vocabulary=text.vocabulary, context=text.context, end=text.end, width=32, layers=1, heads=2
    )
    return Decoder(
        DecoderConfig(
            net=net,
            size=16,
            embedding=16,
            embedding_scale=12.0,
            image_tokens=2,
            caption=caption,
            **more,  # pyright: ignore[reportArgumentType]
        )
    )


def make_upsampler(low: int, high: int, process: ProcessConfig, **more: object) -> Upsampler:
    """An upsampler of 8 channels."""
    scale = 1000.0 if process.schedule == "flow" else 1.0
    net = UnetConfig(
        in_channels=6,
        out_channels=3,
        channels=8,
        multiples=(1, 1),
        blocks=1,
        groups=4,
        label_scale=scale,
        resample="conv",
    )
    return Upsampler(UpsamplerConfig(net=net, process=process, low_size=low, high_size=high, **more))  # pyright: ignore[reportArgumentType]


@torch.no_grad()
def shake(parts: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The parts with layers filled that start at zero and would hide what goes into them."""
    for network in parts.values():
        for parameter in network.parameters():
            if parameter.count_nonzero() == 0:
                parameter.normal_(std=0.05)
    return parts


def make_tiny() -> None:
    """A decoder that is a patch transformer and reads a hint, both priors, two upsamplers; stored in int8."""
    torch.manual_seed(0)
    tokenizer = ClipTokenizer.train(CAPTIONS, vocabulary=540, context=8)
    clip = make_clip(tokenizer)
    net = PatchTransformerConfig(
        size=16, in_channels=7, patch=4, width=32, layers=2, head_channels=16, context_width=24
    )
    parts = {
        "clip": clip,
        "prior": make_prior(clip),
        "prior_autoregressive": make_prior_autoregressive(clip),
        "decoder": make_decoder(clip, net, process=FLOW, inpainting=True, uncertainty=True, augmentation=6),
        "upsampler": make_upsampler(16, 32, FLOW, residual=True),
        "upsampler_1024": make_upsampler(
            32, 64, ProcessConfig(parametrization="x0", schedule="linear"), residual=True, degradation="bsr"
        ),
    }
    defaults = Settings(
        steps=3, prior_steps=3, upsampler_steps=2, second_upsampler_steps=2, candidates=2, guidance=2.0
    )
    save_model(
        HERE / "tiny",
        shake(parts),
        name="tiny",
        tokenizer=tokenizer.to_json(),
        defaults=to_dict(defaults),
        description="Random weights",
        licence="Apache-2.0",
        storage="int8",
        force=True,
    )


def make_unet() -> None:
    """The paper's kind of decoder, without a hint; stored in float16, with some defaults only."""
    torch.manual_seed(1)
    tokenizer = ClipTokenizer.train(CAPTIONS, vocabulary=540, context=8)
    clip = make_clip(tokenizer)
    net = UnetConfig(
        channels=8,
        multiples=(1, 1),
        blocks=1,
        attention_levels=(1,),
        head_channels=8,
        out_channels=6,
        context_width=16,
        vector_width=24,
        groups=4,
    )
    process = ProcessConfig(parametrization="eps", schedule="cosine", learned_variance=True)
    parts = {
        "clip": clip,
        "prior": make_prior(clip),
        "decoder": make_decoder(clip, net, process=process),
        "upsampler": make_upsampler(16, 32, FLOW),
    }
    save_model(
        HERE / "unet",
        shake(parts),
        name="unet",
        tokenizer=tokenizer.to_json(),
        defaults={"steps": 3, "prior_steps": 3, "upsampler_steps": 2, "sampler": "ancestral"},
        storage="float16",
        force=True,
    )


def make_sources(folder: Path) -> None:
    """The pictures that others are made from."""
    folder.mkdir()
    cat = Image.radial_gradient("L").resize((32, 32)).convert("RGB")
    cat.paste("orange", (20, 4, 30, 14))
    cat.save(folder / "cat.png")
    apple = Image.new("RGB", (32, 32), "white")
    draw = ImageDraw.Draw(apple)
    draw.ellipse((5, 8, 27, 30), fill=(200, 30, 40))
    draw.line((16, 9, 18, 2), fill=(100, 60, 20), width=2)
    apple.save(folder / "apple.png")
    apple.resize((16, 12)).save(folder / "small.png")
    mask = Image.new("L", (32, 32))
    ImageDraw.Draw(mask).rectangle((6, 10, 20, 30), fill=255)
    mask.save(folder / "mask.png")
    hole = cat.convert("RGBA")
    hole.putalpha(mask.point(lambda value: 255 - value))
    hole.save(folder / "hole.png")


def make_pictures() -> None:
    """Every picture by its command, and the manifest."""
    sources, folder = HERE / "sources", HERE / "pictures"
    for old in (sources, folder):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir()
    make_sources(sources)
    os.chdir(sources)
    basis = sources / "basis"
    basis.mkdir()
    for name in ("apple", "cat", "small"):
        shutil.copy(sources / f"{name}.png", basis)
    entries = {}
    for name, (model, given, line) in PICTURES.items():
        argv = shlex.split(line)
        where = [] if model is None else ["--model", str(HERE / model)]
        single = name in ("interpolate", "text-diff", "generate-second-picture")
        out = folder / "several" if single else folder / f"{name}.png"
        if single:
            out.mkdir()
        code = main([*argv, *where, "--device", "cpu", "--quiet", "--output", str(out)])
        if code != 0:
            sys.exit(f"{name}: exit code {code}")
        if single:
            last = max(out.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            last.rename(folder / f"{name}.png")
            shutil.rmtree(out)
        entries[name] = {"model": model, "sources": [f"{one}.png" for one in given], "argv": argv}
    shutil.rmtree(basis)
    made = {
        "commit": "6bf6554",
        "torch": torch.__version__,
        "digests": {name: read_manifest(HERE / name).weights for name in ("tiny", "unet")},
        "pictures": entries,
    }
    (HERE / "manifest.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make_tiny()
    make_unet()
    make_pictures()
