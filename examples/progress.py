"""Previews while drawing, and cancelling: every step is reported, and the caller may stop.

python examples/progress.py "a birthday cake" --out out/progress --cancel-at 0.8
"""

import argparse
from pathlib import Path

import unclip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="a birthday cake, noto style")
    parser.add_argument("--steps", type=int, help="decoder steps (default: the model's)")
    parser.add_argument("--cancel-at", type=float, help="stop at this fraction of the work, 0 to 1")
    parser.add_argument("--out", type=Path, default=Path("out/progress"))
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)

    def on_progress(event: unclip.Progress) -> None:
        # `previews` computes something only when it is called, so asking every third step costs a third.
        if event.step % 3 == 0 or event.step == event.total:
            for preview in event.previews():
                path = args.out / f"{event.stage}-{event.step:02}.png"
                preview.save(path)
                print(f"{event.fraction:4.0%} {path}")
        if args.cancel_at is not None and event.fraction >= args.cancel_at:
            raise unclip.Cancelled("the caller has seen enough")

    model = unclip.load("artwork")
    try:
        picture = model.generate(args.prompt, seed=1, steps=args.steps, on_progress=on_progress)[0]
    except unclip.Cancelled as reason:
        print(f"cancelled: {reason}")
        return
    print(picture.save(args.out / "finished.png", force=True))

    # A request is also a lazy iterator: dropping it after one picture leaves the others undrawn.
    request = unclip.Generate(prompt=args.prompt, n=100, seed=1, sampling=unclip.Sampling(fast=True))
    first = next(model.run(request))
    print(f"one of a hundred drawn, seed {first.seed}")


if __name__ == "__main__":
    main()
