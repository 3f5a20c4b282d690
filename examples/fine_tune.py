"""The bundled decoder fine-tuned on twenty pictures of a new style, and the other parts left as they are.

python examples/fine_tune.py --samples 4000 --out out/fine_tune

The style is "blueprint": edges of drawings in white on blue. Pictures of the old styles stay in the data, so that they are
not forgotten.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

import unclip
from unclip.cli.main import main as command
from unclip.formats.registry import resolve

THINGS = "red apple,cat face,dog face,car,tree,house,fox,rocket,heart,star,fish,cake,panda,flower,sun,bird,bus,key,bell,moon"


def blueprint(picture: Image.Image) -> Image.Image:
    edges = picture.convert("L").filter(ImageFilter.FIND_EDGES).filter(ImageFilter.MaxFilter(5))
    return ImageOps.colorize(ImageOps.autocontrast(edges), black="#1b3f8b", white="white")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--samples", type=int, default=4000, help="samples that the decoder sees (default: 4000)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate (default: 2e-4)")
    parser.add_argument("--out", type=Path, default=Path("out/fine_tune"))
    args = parser.parse_args(argv)

    model, data = unclip.load("artwork"), args.out / "pictures"
    data.mkdir(parents=True, exist_ok=True)
    for index, thing in enumerate(THINGS.split(",")[: args.pictures]):
        old = model.generate(f"a {thing}, flat style", seed=index, fast=True)[0].image
        for style, picture in {"flat": old, "blueprint": blueprint(old)}.items():
            picture.save(data / f"{index:02}-{style}.png")
            (data / f"{index:02}-{style}.txt").write_text(f"a {thing}, {style} style\n")

    bundled, run = str(resolve("artwork")), args.out / "decoder"
    settings = {"init": bundled, "samples": args.samples, "batch": args.batch, "optimizer.learning_rate": args.rate}
    settings["optimizer.muon_learning_rate"] = 2 * args.rate
    words = ["train", "decoder", "--recipe", "artwork", "--data", str(data), "--clip", bundled, "--out", str(run)]
    if command([*words, *(f"--set={name}={value}" for name, value in settings.items())]) != 0:
        raise SystemExit("the training failed")

    tuned = unclip.load("artwork", parts={"decoder": run / "model"})
    for style in ("blueprint", "flat"):
        pictures = tuned.generate(f"a cat face, {style} style", n=4, seed=1)
        print(pictures.save(args.out / style, force=True)[0])


if __name__ == "__main__":
    main()
