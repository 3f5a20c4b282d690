"""A data set of your own, and every stage trained on it: pictures beside captions, then one command.

python examples/own_data.py --pictures 200 --out out/own_data

The pictures are drawn by the script; put your own in their place. The recipe is `tiny` (16 px, then 32 px): it shows that
the chain works, and takes about two minutes on two CPU cores.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

import unclip
from unclip.cli.main import main as command

COLOURS, SHAPES = ("red", "green", "blue", "orange"), ("circle", "square", "triangle")


def draw_data(folder: Path, count: int) -> None:
    """`count` pictures NAME.png, each with captions in NAME.txt, one per line."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        colour, shape = COLOURS[index % 4], SHAPES[index // 4 % 3]
        middle, radius = 32 + index % 7 - 3, 16 + index % 9
        box = (middle - radius, middle - radius, middle + radius, middle + radius)
        picture = Image.new("RGB", (64, 64), "white")
        canvas = ImageDraw.Draw(picture)
        if shape == "circle":
            canvas.ellipse(box, colour)
        elif shape == "square":
            canvas.rectangle(box, colour)
        else:
            canvas.polygon([(middle, box[1]), (box[0], box[3]), (box[2], box[3])], colour)
        picture.save(folder / f"{index:04}.png")
        (folder / f"{index:04}.txt").write_text(f"a {colour} {shape}\na {shape} that is {colour}\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--samples", type=int, help="samples per stage (default: the recipe's)")
    parser.add_argument("--out", type=Path, default=Path("out/own_data"))
    args = parser.parse_args(argv)

    data, runs = args.out / "pictures", args.out / "runs"
    draw_data(data, args.pictures)
    short = [f"--set={stage}.samples={args.samples}" for stage in ("clip", "prior", "decoder", "upsampler")]
    words = ["train", "all", "--recipe", "tiny", "--data", str(data), "--out", str(runs), "--no-evaluate"]
    if command(words + short * (args.samples is not None)) != 0:
        raise SystemExit("the training failed")
    pictures = unclip.load(runs / "model").generate("a red circle", n=4, seed=1)
    print(pictures.save(args.out / "drawn", force=True))


if __name__ == "__main__":
    main()
