"""`unclip redo`: a picture made again from its provenance."""

import argparse
from pathlib import Path

from unclip.cli import console, options, outputs
from unclip.cli.console import UsageError
from unclip.cli.draw import reporter


def add(verbs) -> None:
    parser = options.verb(verbs, "redo", "make a picture again from the provenance that it carries")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG file that unclip made")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a picture that it was made from, or a folder of them; repeatable, in the recorded order",
    )
    options.add_output(parser, "the picture's name with -again")
    options.add_force(parser)
    parser.add_argument(
        "-m",
        "--model",
        metavar="NAME",
        help="bundled name, folder, or hub id that was pulled (default: the recorded one)",
    )
    options.add_parts(parser)
    parser.add_argument(
        "--any-weights", action="store_true", help="use the model even if its digest is another one"
    )
    options.add_device(parser, default="the recorded one")
    options.add_offload(parser)
    options.add_quiet(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.cli.loading import load
    from unclip.generate.image import Image
    from unclip.generate.replay import read_replay
    from unclip.generate.sources import read_source

    before = Image.open(arguments.picture)
    replay = read_replay(before.provenance)
    path = options.writable(name_output(arguments.output, arguments.picture), force=arguments.force)
    given = [outputs.pictures_in(path) if path.is_dir() else [path] for path in arguments.source]
    sources = [read_source(path).image for paths in given for path in paths]
    try:
        model = load(
            arguments.model or replay.model,
            arguments.device or replay.device,
            arguments.dtype or replay.dtype,
            offload=arguments.offload,
            parts=dict(arguments.part),
        )
    except FileNotFoundError as error:
        if arguments.model is not None:
            raise
        raise UsageError(
            f"{arguments.picture} was made by {replay.model!r}, which is not found here; give its folder: --model FOLDER"
        ) from error
    with console.Progress(quiet=arguments.quiet) as progress:
        after = model.redo(
            before.provenance,
            *sources,
            on_progress=reporter(progress),
            any_weights=arguments.any_weights,
        )
    after.save(path, force=arguments.force)
    identical = before.image.size == after.image.size and before.image.tobytes() == after.image.tobytes()
    console.tell("every pixel is the same" if identical else "the pixels differ")
    if arguments.json:
        console.result_json({"path": str(path), "identical": identical, **after.provenance})
    else:
        console.result(str(path))


def name_output(output: str | None, picture: Path) -> Path:
    """Path of the new picture: never the old one's unless it is named."""
    if output is None:
        return picture.with_stem(f"{picture.stem}-again")
    return Path(output) / picture.name if outputs.is_folder(output) else Path(output)
