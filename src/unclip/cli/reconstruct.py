"""`unclip reconstruct`: a picture drawn again from its own embedding and noise, or from a part of its embedding."""

import argparse
from pathlib import Path

from unclip.cli import console, drawing, options
from unclip.cli.console import UsageError


def add(verbs) -> None:
    parser = options.verb(verbs, "reconstruct", "draw a picture again from its own embedding and noise")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP file")
    parser.add_argument(
        "--dimensions",
        type=counts,
        metavar="N,N,...",
        help="draw it from the first N principal components of its embedding instead, once for each N",
    )
    parser.add_argument(
        "--basis",
        type=Path,
        metavar="FOLDER",
        help="whose pictures' components these are (default: the model's, where it has an autoregressive prior)",
    )
    drawing.add_options(
        parser,
        output="a .png file (several N side by side), or a folder (default: here, named after the picture)",
        prior=False,
        grid=False,
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if arguments.basis is not None and arguments.dimensions is None:
        raise UsageError("--basis says whose components --dimensions counts; give both")

    from unclip.generate.reconstruct import reconstruct
    from unclip.generate.sources import read_source

    image = read_source(arguments.picture).image
    basis = None
    if arguments.basis is not None:
        basis = [read_source(path).image for path in drawing.pictures_in(arguments.basis)]
    system = drawing.load(arguments)
    settings = drawing.settings(arguments, system, inverted=arguments.dimensions is None)
    seed = drawing.choose_seed(arguments)
    stem = arguments.picture.stem
    stems = [f"{stem}-{count}" for count in arguments.dimensions or ()] or [f"{stem}-reconstructed"]
    as_strip = len(stems) > 1 and arguments.output is not None and not drawing.is_folder(arguments.output)
    if as_strip:
        stems = stems[:1]
    paths = drawing.plan_outputs(arguments, stems)
    with console.Progress(quiet=arguments.quiet) as progress:
        common = {
            "settings": settings,
            "seed": seed,
            "size": arguments.size,
            "callback": drawing.reporter(progress),
        }
        if arguments.dimensions is not None:
            from unclip.generate.pca import pca_reconstructions
            from unclip.generate.sequence import strip

            made = pca_reconstructions(system, image, dimensions=arguments.dimensions, basis=basis, **common)
            if as_strip:
                made = [strip(list(made), along="dimensions")]
            drawing.deliver(made, paths, arguments)
            return
        picture = reconstruct(system, image, **common)
    console.tell(f"{picture.recipe['psnr']} dB from the original at the decoder's size")
    drawing.deliver([picture], paths, arguments)


def counts(text: str) -> list[int]:
    """Whole numbers of at least 1, with commas, each of them once."""
    return list(dict.fromkeys(options.positive(part) for part in text.split(",")))
