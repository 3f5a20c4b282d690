"""`unclip interpolate`: pictures on the way from one to another."""

import argparse
from pathlib import Path

from unclip.cli import console, drawing, options, paths


def add(verbs) -> None:
    parser = options.verb(verbs, "interpolate", "draw pictures on the way from one to another")
    parser.add_argument("first", type=Path, metavar="FIRST", help="a PNG, JPEG or WebP file")
    parser.add_argument("last", type=Path, metavar="LAST", help="another one")
    parser.add_argument(
        "--noise",
        choices=("inverted", "fixed"),
        default="inverted",
        help="from the first picture's own noise to the last's, or the seed's all along (default: inverted)",
    )
    paths.add_options(parser, number=7)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.generate.interpolate import interpolate
    from unclip.generate.sources import read_source

    thetas = paths.thetas(arguments)
    ends = [read_source(path).image for path in (arguments.first, arguments.last)]
    system = drawing.load(arguments)
    settings = drawing.settings(arguments, system, inverted=arguments.noise == "inverted")
    seed = drawing.choose_seed(arguments)
    outputs = paths.plan_outputs(arguments, f"{arguments.first.stem}-to-{arguments.last.stem}")
    with console.Progress(quiet=arguments.quiet) as progress:
        pictures = interpolate(
            system,
            *ends,
            settings=settings,
            thetas=thetas,
            noise=arguments.noise,
            seed=seed,
            size=arguments.size,
            callback=drawing.reporter(progress),
        )
        paths.deliver(pictures, outputs, arguments)
