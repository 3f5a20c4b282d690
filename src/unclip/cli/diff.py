"""`unclip diff`: a picture led from what one caption says to what another says."""

import argparse
from pathlib import Path

from unclip.cli import console, drawing, options, paths
from unclip.cli.console import UsageError


def add(verbs) -> None:
    parser = options.verb(verbs, "diff", "lead a picture from what one caption says to what another says")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP file")
    parser.add_argument("target", metavar="TARGET", help="what it is to become, in quotes")
    parser.add_argument(
        "--source", default="", metavar="TEXT", help="what it is now, such as `a cat` (default: nothing said)"
    )
    parser.add_argument(
        "--maximum",
        type=options.number,
        default=0.5,
        metavar="X",
        help="how much of the way to go, 0 to 1 (default: 0.5; the paper's lie between 0.25 and 0.5)",
    )
    paths.add_options(parser, number=5)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if not arguments.target.strip():
        raise UsageError("the target is empty; say what the picture is to become")
    if arguments.maximum > 1:
        raise UsageError(f"--maximum {arguments.maximum:g} is too large; give 0 to 1")

    from unclip.generate.sources import read_source
    from unclip.generate.text_diff import text_diff

    thetas = paths.thetas(arguments, arguments.maximum)
    image = read_source(arguments.picture).image
    system = drawing.load(arguments)
    settings = drawing.settings(arguments, system, inverted=True)
    seed = drawing.choose_seed(arguments)
    outputs = paths.plan_outputs(arguments, f"{arguments.picture.stem}-to-{drawing.slug(arguments.target)}")
    with console.Progress(quiet=arguments.quiet) as progress:
        pictures = text_diff(
            system,
            image,
            target=arguments.target,
            source=arguments.source,
            settings=settings,
            thetas=thetas,
            seed=seed,
            size=arguments.size,
            callback=drawing.reporter(progress),
        )
        paths.deliver(pictures, outputs, arguments)
