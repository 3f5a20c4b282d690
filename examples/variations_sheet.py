"""Variations of a picture for several eta, as one sheet: a row for each eta, the original first.

python examples/variations_sheet.py fox.png --etas 0,0.5,1 -n 4 --out sheet.png

Rows with eta start from the picture's own noise x_T: 0 gives the picture back, 1 keeps the least of it. The last row
starts from fresh noise, so that only z_i is kept.
"""

import argparse
from pathlib import Path

from PIL import Image

import unclip
from unclip.images import grid

FOX = Path(__file__).parent.parent / "docs" / "images" / "inputs" / "fox.png"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, default=FOX)
    parser.add_argument("--etas", default="0,0.5,1", help="values from 0 to 1, by commas")
    parser.add_argument("-n", type=int, default=4, help="variations in a row (default: 4)")
    parser.add_argument("--steps", type=int, help="decoder steps (default: the model's)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/variations.png"))
    args = parser.parse_args(argv)

    model = unclip.load("artwork")
    original = Image.open(args.picture).convert("RGB").resize((256, 256))
    cells: list[Image.Image] = []
    for eta in [*map(float, args.etas.split(",")), None]:
        row = model.vary(args.picture, n=args.n, eta=eta, steps=args.steps, seed=args.seed, size=256)
        cells += [original, *(one.image for one in row)]
        print("fresh noise" if eta is None else f"eta {eta:g}", [one.seed for one in row])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    grid(cells, columns=args.n + 1, gap=8).save(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
