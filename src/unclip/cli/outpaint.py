"""`unclip outpaint`: a picture continued beyond its sides."""

import argparse
from pathlib import Path

from unclip.cli import console, drawing, options
from unclip.cli.console import UsageError

SIDES = ("left", "top", "right", "bottom")


def add(verbs) -> None:
    parser = options.verb(verbs, "outpaint", "continue a picture beyond its sides")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP file")
    parser.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="what the whole result shows, in quotes (default: more of the same)",
    )
    for side in SIDES:
        parser.add_argument(
            f"--{side}",
            type=options.positive,
            default=0,
            metavar="N",
            help=f"pixels to add at the {side} (default: none)",
        )
    sampling = drawing.add_options(
        parser,
        output="a .png file, or a folder (default: named after the picture and the seed)",
        prior=True,
        grid=False,
        size=False,
    )
    sampling.add_argument("--negative", metavar="TEXT", help="what to lead away from")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    sides = {side: getattr(arguments, side) for side in SIDES}
    if not any(sides.values()):
        raise UsageError("nothing is to be added; give --left, --top, --right or --bottom")
    if arguments.prompt is not None and not arguments.prompt.strip():
        raise UsageError("the prompt is empty; say what the whole result is to show, or leave it out")

    from unclip.generate.outpaint import outpaint
    from unclip.generate.sources import read_source

    image = read_source(arguments.picture).image
    system = drawing.load(arguments)
    settings = drawing.settings(arguments, system)
    seed = drawing.choose_seed(arguments)
    outputs = drawing.plan_outputs(arguments, [f"{arguments.picture.stem}-outpaint-{seed}"])
    with console.Progress(quiet=arguments.quiet) as progress:
        picture = outpaint(
            system,
            image,
            arguments.prompt,
            **sides,
            settings=settings,
            seed=seed,
            negative=arguments.negative,
            callback=drawing.reporter(progress),
        )
    drawing.deliver([picture], outputs, arguments)
