"""`unclip reconstruct`: a picture drawn again from its own embedding and noise."""

import argparse
from pathlib import Path

from unclip.cli import console, drawing, options


def add(verbs) -> None:
    parser = options.verb(verbs, "reconstruct", "draw a picture again from its own embedding and noise")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP file")
    drawing.add_options(
        parser,
        output="a .png file, or a folder (default: here, named after the picture)",
        prior=False,
        grid=False,
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.generate.inversion import drawing_settings
    from unclip.generate.reconstruct import reconstruct
    from unclip.generate.sources import read_source

    image = read_source(arguments.picture).image
    system = drawing.load(arguments)
    with drawing.usage_errors():
        settings = drawing_settings(system.defaults, drawing.knobs(arguments), inverted=True)
    seed = drawing.choose_seed(arguments)
    paths = drawing.plan_outputs(arguments, [f"{arguments.picture.stem}-reconstructed"])
    with console.Progress(quiet=arguments.quiet) as progress:
        picture = reconstruct(
            system,
            image,
            settings=settings,
            seed=seed,
            size=arguments.size,
            callback=drawing.reporter(progress),
        )
    console.tell(f"{picture.recipe['psnr']} dB from the original at the decoder's size")
    drawing.deliver([picture], paths, arguments)
