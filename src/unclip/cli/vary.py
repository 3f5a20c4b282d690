"""`unclip vary`: other pictures of the same meaning and style."""

import argparse
from pathlib import Path

from unclip.cli import console, drawing, options
from unclip.cli.console import UsageError


def add(verbs) -> None:
    parser = options.verb(verbs, "vary", "draw other pictures of the same meaning and style")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP file")
    parser.add_argument(
        "-n", "--number", type=options.positive, default=4, metavar="N", help="how many (default: 4)"
    )
    parser.add_argument(
        "--eta",
        type=options.number,
        metavar="X",
        help="start from the picture's own noise: 0 gives it back, 1 keeps the least (default: from fresh noise)",
    )
    sampling = drawing.add_options(
        parser, output="a .png file, or a folder (default: here, named after picture and seed)", prior=False
    )
    drawing.add_random(sampling)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if arguments.eta is not None and arguments.eta > 1:
        raise UsageError(f"--eta {arguments.eta:g} is too large; give 0 to 1")

    from unclip.generate.settings import seed_of
    from unclip.generate.sources import read_source
    from unclip.generate.variations import vary

    image = read_source(arguments.picture).image
    system = drawing.load(arguments)
    settings = drawing.settings(arguments, system, inverted=arguments.eta is not None)
    seed = drawing.choose_seed(arguments)
    stems = [f"{arguments.picture.stem}-vary-{seed_of(seed, index)}" for index in range(arguments.number)]
    paths = drawing.plan_outputs(arguments, stems)
    with console.Progress(quiet=arguments.quiet) as progress:
        pictures = vary(
            system,
            image,
            settings=settings,
            n=arguments.number,
            eta=arguments.eta,
            seed=seed,
            size=arguments.size,
            callback=drawing.reporter(progress),
        )
        drawing.deliver(pictures, paths, arguments)
