"""Text to image, and what a picture records.

python examples/draw.py "a red rocket, 3d style" -n 4 --out out/draw
"""

import argparse
import json

import unclip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="a red rocket, 3d style")
    parser.add_argument("-n", type=int, default=4, help="pictures (default: 4)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, help="decoder steps (default: the model's)")
    parser.add_argument("--model", default="artwork", help="bundled name, model folder, or pulled hub id")
    parser.add_argument("--out", default="out/draw")
    args = parser.parse_args(argv)

    model = unclip.load(args.model)
    pictures = model.generate(args.prompt, n=args.n, seed=args.seed, steps=args.steps)
    for path in pictures.save(args.out, force=True):
        print(path)

    # The record is JSON, travels in the PNG, and is enough to make the picture again.
    first = pictures[0]
    print(json.dumps(first.provenance["request"], indent=2))
    again = model.redo(first.provenance)
    print("made again, equal:", again.image.tobytes() == first.image.tobytes())


if __name__ == "__main__":
    main()
