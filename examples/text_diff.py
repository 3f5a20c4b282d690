"""A text diff: a picture led from one caption to another, as an animation, with the captions that CLIP sees on the way.

python examples/text_diff.py fox.png "a cat face" --baseline "a fox" --out diff.webp
"""

import argparse
from pathlib import Path

import unclip
from unclip.generate.sequence import save_animation

FOX = Path(__file__).parent.parent / "docs" / "images" / "inputs" / "fox.png"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, default=FOX)
    parser.add_argument("target", nargs="?", default="a cat face, flat style")
    parser.add_argument("--baseline", default="a fox, flat style", help="caption of the picture as it is")
    parser.add_argument("--maximum", type=float, default=0.5, help="end of the path (default: 0.5)")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--steps", type=int, help="decoder steps (default: 25, for the inversion)")
    parser.add_argument("--out", type=Path, default=Path("out/diff.webp"))
    args = parser.parse_args(argv)

    model = unclip.load("artwork")
    request = unclip.TextDiff(
        target=args.target,
        baseline=args.baseline,
        maximum=args.maximum,
        frames=args.frames,
        seed=1,
        sampling=unclip.Sampling(decoder=unclip.DecoderSampling(steps=args.steps)),
    )
    frames = []
    for frame in model.run(request, [args.picture]):
        frames.append(frame)
        # `embedding` is the z_i that the frame was decoded from: turned by theta from the picture's.
        assert frame.embedding is not None
        found = model.nearest_captions(frame.embedding, [args.baseline, args.target])
        (theta,) = frame.provenance["request"]["thetas"]
        print(f"theta {theta:.2f}: " + ", ".join(f"{one.caption!r} {one.cosine:.2f}" for one in found))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    print(save_animation(frames, args.out, milliseconds=200, force=True))


if __name__ == "__main__":
    main()
