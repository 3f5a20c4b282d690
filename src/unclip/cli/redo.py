"""`unclip redo`: a picture made again from the recipe that it carries."""

import argparse
from pathlib import Path

from unclip.cli import console, drawing, options
from unclip.cli.console import UsageError


def add(verbs) -> None:
    parser = options.verb(verbs, "redo", "make a picture again from the recipe that it carries")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG file that unclip made")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a picture that it was made from, for all but `generate`, or a folder of them; repeatable, in the recipe's order",
    )
    options.add_output(parser, "the picture's name with -again")
    options.add_force(parser)
    parser.add_argument(
        "-m", "--model", metavar="NAME", help="a bundled model or a folder (default: the recipe's)"
    )
    parser.add_argument(
        "--any-weights", action="store_true", help="use the model even if its weights are not the same"
    )
    options.add_device(parser, default="the recipe's")
    options.add_offload(parser)
    options.add_quiet(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.checkpoints.hub import bundled
    from unclip.cli.loading import load
    from unclip.generate.picture import Picture
    from unclip.generate.sources import read_source

    before = Picture.open(arguments.picture)
    path = options.writable(name_output(arguments.output, arguments.picture), force=arguments.force)
    model = arguments.model or str(before.recipe.get("model"))
    if arguments.model is None and model not in bundled():
        raise UsageError(
            f"{arguments.picture} was made by {model!r}, which is not bundled; give its folder: --model FOLDER"
        )
    given = [drawing.pictures_in(path) if path.is_dir() else [path] for path in arguments.source]
    sources = [read_source(path).image for paths in given for path in paths]
    system = load(
        model,
        arguments.device or before.recipe.get("device"),
        arguments.dtype or before.recipe.get("dtype"),
        offload=arguments.offload,
    )
    with console.Progress(quiet=arguments.quiet) as progress:
        after = system.redo(
            before.recipe,
            *sources,
            callback=drawing.reporter(progress),
            any_weights=arguments.any_weights,
        )
    after.save(path, force=arguments.force)
    identical = before.image.size == after.image.size and before.image.tobytes() == after.image.tobytes()
    console.tell("every pixel is the same" if identical else "the pixels differ")
    if arguments.json:
        console.result_json({"path": str(path), "identical": identical, **after.recipe})
    else:
        console.result(str(path))


def name_output(output: str | None, picture: Path) -> Path:
    """Where the new picture goes: never over the old one unless it is named."""
    if output is None:
        return picture.with_stem(f"{picture.stem}-again")
    return Path(output) / picture.name if drawing.is_folder(output) else Path(output)
