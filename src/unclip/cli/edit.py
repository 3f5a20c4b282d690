"""`unclip edit`: a part of a picture drawn anew after a caption of the whole."""

import argparse
from pathlib import Path

from unclip.cli import console, drawing, options
from unclip.cli.console import UsageError


def add(verbs) -> None:
    parser = options.verb(verbs, "edit", "draw a part of a picture anew, and keep the rest to the bit")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP file")
    parser.add_argument("prompt", metavar="PROMPT", help="what the whole result shows, in quotes")
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="a picture of the same size, white or transparent where to draw (default: PICTURE's transparent pixels)",
    )
    parser.add_argument("--box", type=box, metavar="L,T,R,B", help="draw in this rectangle of pixels instead")
    parser.add_argument(
        "-n", "--number", type=options.positive, default=1, metavar="N", help="how many (default: 1)"
    )
    sampling = drawing.add_options(
        parser,
        output="a .png file, or a folder (default: named after the picture and the seed)",
        prior=True,
        size=False,
    )
    sampling.add_argument("--negative", metavar="TEXT", help="what to lead away from")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if not arguments.prompt.strip():
        raise UsageError("the prompt is empty; say what the whole result is to show")
    if arguments.mask is not None and arguments.box is not None:
        raise UsageError("give --mask or --box, not both")

    from unclip.generate.holes import read_hole
    from unclip.generate.inpaint import edit
    from unclip.generate.settings import seed_of
    from unclip.generate.sources import read_source

    source = read_source(arguments.picture)
    # A mask that does not fit is told before the model is loaded.
    mask = arguments.box or (None if arguments.mask is None else read_source(arguments.mask).image)
    read_hole(source, mask)
    system = drawing.load(arguments)
    settings = drawing.settings(arguments, system)
    seed = drawing.choose_seed(arguments)
    stems = [f"{arguments.picture.stem}-edit-{seed_of(seed, index)}" for index in range(arguments.number)]
    outputs = drawing.plan_outputs(arguments, stems)
    with console.Progress(quiet=arguments.quiet) as progress:
        pictures = edit(
            system,
            source.image,
            mask,
            arguments.prompt,
            settings=settings,
            n=arguments.number,
            seed=seed,
            negative=arguments.negative,
            callback=drawing.reporter(progress),
        )
        drawing.deliver(pictures, outputs, arguments)


def box(text: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, with commas."""
    try:
        left, top, right, bottom = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no box; give left,top,right,bottom in pixels"
        ) from None
    return left, top, right, bottom
