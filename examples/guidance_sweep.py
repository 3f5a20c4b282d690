"""The same seeds under rising classifier-free guidance, with the cosine between picture and caption, as one sheet.

python examples/guidance_sweep.py "a purple heart, 3d style" --scales 1,2,4,8 --out sweep.png
"""

import argparse
from pathlib import Path

import unclip
from unclip.images import grid


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="a purple heart, 3d style")
    parser.add_argument(
        "--scales", default="1,2,4,8", help="guidance scales of the decoder, by commas; 1 is off"
    )
    parser.add_argument("-n", type=int, default=4, help="pictures for each scale (default: 4)")
    parser.add_argument("--steps", type=int, help="decoder steps (default: the model's)")
    parser.add_argument("--out", type=Path, default=Path("out/guidance.png"))
    args = parser.parse_args(argv)

    model = unclip.load("artwork")
    z_t = model.embed_text(args.prompt)
    cells = []
    for scale in map(float, args.scales.split(",")):
        pictures = model.generate(args.prompt, n=args.n, seed=1, guidance=scale, steps=args.steps)
        z_i = model.embed_image(pictures)
        # Likeness to the caption, and variety: how far the pictures' embeddings are from their mean.
        cosine = (z_i @ z_t.T).mean().item()
        spread = (z_i - z_i.mean(0)).norm(dim=1).mean().item()
        print(f"guidance {scale:g}: cosine to the caption {cosine:.3f}, spread {spread:.3f}")
        cells += [one.image for one in pictures]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    grid(cells, columns=args.n, gap=8).save(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
