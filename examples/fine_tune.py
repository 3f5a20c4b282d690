"""The bundled prior and decoder fine-tuned on twenty pictures of a new style; the other parts stay as they are.

python examples/fine_tune.py --samples 4000 --out out/fine_tune

The style is "blueprint": edges of drawings, white on blue. The drawings themselves stay in the data, so that their style is
not forgotten.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

import unclip
from unclip.cli.main import main as command
from unclip.formats.registry import resolve

THINGS = (
    "red apple,cat face,dog face,car,tree,house,fox,rocket,heart,star,"
    "fish,cake,panda,flower,sun,bird,bus,key,bell,moon"
)


def blueprint(picture: Image.Image) -> Image.Image:
    edges = picture.convert("L").filter(ImageFilter.FIND_EDGES).filter(ImageFilter.MaxFilter(5))
    return ImageOps.colorize(ImageOps.autocontrast(edges), black="#1b3f8b", white="white")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--samples", type=int, default=4000, help="that each part sees (default: 4000)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("out/fine_tune"))
    args = parser.parse_args(argv)

    model, data = unclip.load("artwork"), args.out / "pictures"
    data.mkdir(parents=True, exist_ok=True)
    for index, thing in enumerate(THINGS.split(",")[: args.pictures]):
        flat = model.generate(f"a {thing}, flat style", seed=index, fast=True)[0].image
        for style, picture in {"flat": flat, "blueprint": blueprint(flat)}.items():
            picture.save(data / f"{index:02}-{style}.png")
            (data / f"{index:02}-{style}.txt").write_text(f"a {thing}, {style} style\n")

    bundled = str(resolve("artwork"))
    words = ["--recipe", "artwork_gpu", "--data", str(data), "--clip", bundled, f"--set=init={bundled}"]
    words += [f"--set=samples={args.samples}", f"--set=batch={args.batch}"]
    words += ["--set=optimizer.learning_rate=2e-4", "--set=optimizer.muon_learning_rate=4e-4"]
    for stage in ("prior", "decoder"):
        if command(["train", stage, *words, "--out", str(args.out / stage)]) != 0:
            raise SystemExit("the training failed")

    parts = {stage: args.out / stage / "model" for stage in ("prior", "decoder")}
    tuned = unclip.load("artwork", parts=parts)
    for style in ("blueprint", "flat"):
        print(tuned.generate(f"a cat face, {style} style", n=4, seed=1).save(args.out / style, force=True)[0])


if __name__ == "__main__":
    main()
