"""Pinned commands: requests of the unclip command line whose results must not change, and the files that they read.

Imports neither torch nor unclip. Paths are relative to the folder in which the commands run.
"""

from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw


class Command(NamedTuple):
    """One call of the command line, without `--output`, which the recorder adds."""

    argv: tuple[str, ...]
    output: str = "picture.png"
    """File name of the result; several pictures are numbered. Empty: a folder of files with the default names."""
    needs: tuple[str, ...] = ()
    """Names of commands whose results this one reads."""
    printed: bool = False
    """The result is the standard output, not pictures; no `--output` is given."""


def _split(line: str, *words: str) -> tuple[str, ...]:
    """`line` split at spaces, with each `?` replaced by the next of `words`, which may contain spaces."""
    found = iter(words)
    return tuple(next(found) if part == "?" else part for part in line.split())


FEW = "--steps 3 --upsampler-steps 1"
FEW_PRIOR = f"{FEW} --prior-steps 3"
SMALL = "--size 64"

#: Name -> command; every operation of version 0.1 that makes pictures, on the bundled model.
DRAWING: dict[str, Command] = {
    "generate": Command(_split(f"generate ? --seed 1 {FEW_PRIOR}", "a red apple")),
    "generate-defaults": Command(_split(f"generate ? --seed 2 {SMALL}", "a blue cat, flat style")),
    "generate-autoregressive": Command(
        _split(f"generate ? --seed 3 {FEW} --prior autoregressive", "a green tree")
    ),
    "generate-text": Command(_split(f"generate ? --seed 4 {FEW} --prior text", "a yellow car")),
    "generate-none": Command(_split(f"generate ? --seed 5 {FEW} {SMALL} --prior none", "a house")),
    "generate-batch": Command(
        _split(f"generate --prompts inputs/prompts.txt -n 2 --seed 6 {FEW_PRIOR} {SMALL}"), output=""
    ),
    "generate-grid": Command(
        _split(f"generate ? -n 3 --seed 7 {FEW_PRIOR} {SMALL} --grid out/generate-grid/grid.png", "a fox")
    ),
    "generate-negative": Command(
        _split(
            f"generate ? --seed 8 {FEW_PRIOR} --guidance 3 --prior-guidance 2 --negative ?",
            "a rocket, 3d style",
            "a blue car",
        )
    ),
    "generate-fast": Command(_split("generate ? --seed 9 --fast", "a smiling face")),
    "generate-1024": Command(
        _split(f"generate ? --seed 10 {FEW_PRIOR} --second-upsampler-steps 1 --size 1024", "a red apple")
    ),
    "generate-init": Command(
        _split(f"generate ? --seed 11 {FEW_PRIOR} --init inputs/cat.png --strength 0.6", "a brown dog")
    ),
    "generate-diffusers": Command(
        _split(
            f"generate ? --seed 12 {FEW_PRIOR} --random diffusers --candidates 1 --sampler ancestral",
            "a red apple",
        )
    ),
    "generate-heun": Command(
        _split(f"generate ? --seed 13 {FEW_PRIOR} {SMALL} --candidates 3 --sampler heun", "a green frog")
    ),
    "generate-offload": Command(
        _split(f"generate ? --seed 14 {FEW_PRIOR} --offload --sampler dpmpp_2m_sde", "a pink flower")
    ),
    "vary": Command(_split(f"vary inputs/cat.png -n 2 --seed 15 {FEW}")),
    "vary-eta": Command(_split(f"vary inputs/cat.png -n 2 --eta 0.5 --seed 16 {FEW} {SMALL}")),
    "vary-sampler": Command(_split(f"vary inputs/apple.png -n 1 --seed 17 {FEW} {SMALL} --sampler euler")),
    "interpolate": Command(
        _split(f"interpolate inputs/cat.png inputs/apple.png -n 3 --seed 18 {FEW} {SMALL}"),
        output="animation.webp",
    ),
    "interpolate-strip": Command(
        _split(f"interpolate inputs/cat.png inputs/apple.png -n 3 --noise fixed --seed 19 {FEW} {SMALL}")
    ),
    "interpolate-folder": Command(
        _split(f"interpolate inputs/apple.png inputs/cat.png -n 2 --seed 20 {FEW}"), output=""
    ),
    "diff": Command(
        _split(f"diff inputs/cat.png ? --source ? -n 3 --seed 21 {FEW} {SMALL}", "a dog", "a cat")
    ),
    "diff-animation": Command(
        _split(f"diff inputs/apple.png ? -n 2 --maximum 0.4 --seed 22 {FEW} {SMALL}", "a green apple"),
        output="animation.gif",
    ),
    "edit-box": Command(
        _split(f"edit inputs/cat.png ? --box 60,60,180,200 -n 2 --seed 23 {FEW_PRIOR}", "a cat with a hat")
    ),
    "edit-mask": Command(
        _split(
            f"edit inputs/wide.png ? --mask inputs/mask.png --seed 24 {FEW_PRIOR} --negative ?",
            "a red apple",
            "a tree",
        )
    ),
    "edit-transparent": Command(
        _split(f"edit inputs/hole.png ? --seed 25 {FEW} --prior autoregressive", "a cat")
    ),
    "outpaint": Command(_split(f"outpaint inputs/apple.png --left 40 --bottom 24 --seed 26 {FEW_PRIOR}")),
    "outpaint-prompt": Command(
        _split(f"outpaint inputs/wide.png ? --right 60 --top 10 --seed 27 {FEW_PRIOR}", "an apple on a table")
    ),
    "upscale": Command(_split("upscale inputs/small.png --steps 2 --seed 28")),
    "upscale-twice": Command(_split("upscale inputs/small.png --size 400 --steps 1 --seed 29")),
    "reconstruct": Command(_split(f"reconstruct inputs/cat.png --seed 30 {FEW}")),
    "reconstruct-dimensions": Command(
        _split(f"reconstruct inputs/cat.png --dimensions 4,40 --seed 31 {FEW} {SMALL}")
    ),
    "reconstruct-basis": Command(
        _split(f"reconstruct inputs/cat.png --dimensions 1,2 --basis inputs/basis --seed 32 {FEW} {SMALL}"),
        output="",
    ),
    "probe": Command(
        _split(f"probe inputs/apple.png pizza ? ? -n 1 --seed 33 {FEW} {SMALL}", "an apple", "a pizza")
    ),
    "captions": Command(
        _split("captions inputs/cat.png ? ? ? --json", "a cat", "a dog", "a red apple"), printed=True
    ),
    "redo-generate": Command(("redo", "out/generate/picture.png"), needs=("generate",)),
    "redo-edit": Command(
        _split("redo out/edit-mask/picture.png --source inputs/wide.png --source inputs/mask.png"),
        needs=("edit-mask",),
    ),
}

#: Name -> (argv, folder of the results). The digests are those of the trained weights.
TRAINING: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "train": (
        _split(
            "train all --recipe tiny --no-evaluate --device cpu --out runs --set clip.samples=1024 "
            "--set prior.samples=1024 --set decoder.samples=160 --set upsampler.samples=256"
        ),
        ("clip", "prior", "decoder", "upsampler", "model"),
    ),
    "train-autoregressive": (
        _split(
            "train prior_autoregressive --recipe tiny --device cpu --out runs/prior_autoregressive "
            "--clip runs/clip --set samples=512"
        ),
        ("prior_autoregressive",),
    ),
    "train-upsampler-1024": (
        _split(
            "train upsampler_1024 --recipe tiny --device cpu --out runs/upsampler_1024 --seed 3 --set samples=64"
        ),
        ("upsampler_1024",),
    ),
}

#: All names, in the order in which they run.
NAMES = (*DRAWING, *TRAINING)
NEEDS = {name: command.needs for name, command in DRAWING.items()} | {
    "train": (),
    "train-autoregressive": ("train",),
    "train-upsampler-1024": (),
}


def write_inputs(folder: Path) -> None:
    """Draw the files that the commands read."""
    folder.mkdir(parents=True, exist_ok=True)
    cat = draw_cat(256)
    cat.save(folder / "cat.png")
    apple = draw_apple(256)
    apple.save(folder / "apple.png")
    apple.resize((64, 48)).save(folder / "small.png")
    apple.resize((200, 144)).save(folder / "wide.png")
    mask = Image.new("L", (200, 144))
    ImageDraw.Draw(mask).ellipse((60, 30, 150, 120), fill=255)
    mask.save(folder / "mask.png")
    hole = cat.convert("RGBA")
    hole.putalpha(mask.resize((256, 256), Image.Resampling.NEAREST).point(lambda value: 255 - value))
    hole.save(folder / "hole.png")
    basis = folder / "basis"
    basis.mkdir(exist_ok=True)
    for index, image in enumerate((cat, apple, cat.rotate(180), apple.transpose(Image.Transpose.ROTATE_90))):
        image.save(basis / f"{index}.png")
    (folder / "prompts.txt").write_text("a red apple\n\na blue cat, flat style\n", encoding="utf-8")


def draw_cat(size: int) -> Image.Image:
    """A cat's face, `size` pixels a side."""
    image = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(image)
    for ear in ([(50, 120), (60, 30), (120, 80)], [(206, 120), (196, 30), (136, 80)]):
        draw.polygon(ear, fill=(240, 150, 40))
    draw.ellipse((40, 60, 216, 226), fill=(250, 170, 60))
    for x in (86, 146):
        draw.ellipse((x, 110, x + 24, 146), fill=(30, 30, 40))
    draw.polygon([(118, 160), (138, 160), (128, 174)], fill=(220, 90, 110))
    draw.arc((100, 160, 156, 200), 20, 160, fill=(90, 40, 20), width=4)
    return image if size == 256 else image.resize((size, size))


def draw_apple(size: int) -> Image.Image:
    """An apple with a leaf, `size` pixels a side."""
    image = Image.new("RGB", (256, 256), (235, 245, 255))
    draw = ImageDraw.Draw(image)
    draw.ellipse((50, 80, 150, 226), fill=(200, 30, 40))
    draw.ellipse((106, 80, 206, 226), fill=(210, 36, 46))
    draw.line((128, 90, 136, 40), fill=(100, 60, 20), width=8)
    draw.ellipse((136, 40, 196, 66), fill=(60, 160, 60))
    return image if size == 256 else image.resize((size, size))
