"""`unclip probe`: whether a word that is written on a picture deceives CLIP, and what variations make of it."""

import argparse
from pathlib import Path

from unclip.cli import captions, console, drawing, options
from unclip.cli.console import UsageError


def add(verbs) -> None:
    parser = options.verb(
        verbs, "probe", "write a word on a picture, and tell and draw what the model makes of that"
    )
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP file")
    parser.add_argument("word", metavar="WORD", help="what to write across it")
    captions.add_captions(parser)
    parser.add_argument(
        "-n",
        "--number",
        type=options.positive,
        default=4,
        metavar="N",
        help="variations to draw of the picture with the word (default: 4)",
    )
    drawing.add_options(
        parser,
        output="a .png file, or a folder, for the variations; the picture with the word lies beside them",
        prior=False,
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if not arguments.word.strip():
        raise UsageError("the word is empty; say what to write on the picture")
    choices = captions.read_captions(arguments)

    from unclip.generate.probes import typographic_probe
    from unclip.generate.settings import seed_of
    from unclip.generate.sources import read_source
    from unclip.images import save_picture

    image = read_source(arguments.picture).image
    system = drawing.load(arguments)
    settings = drawing.settings(arguments, system)
    seed = drawing.choose_seed(arguments)
    stem = f"{arguments.picture.stem}-{drawing.slug(arguments.word)}"
    stems = [f"{stem}-vary-{seed_of(seed, index)}" for index in range(arguments.number)]
    outputs = drawing.plan_outputs(arguments, stems)
    beside = next(path for path in (*outputs, arguments.grid) if path is not None)
    written = options.writable(beside.with_name(f"{stem}.png"), force=arguments.force)
    with console.Progress(quiet=arguments.quiet) as progress:
        probe = typographic_probe(
            system,
            image,
            arguments.word,
            choices,
            settings=settings,
            n=arguments.number,
            seed=seed,
            size=arguments.size,
            callback=drawing.reporter(progress),
        )
    save_picture(probe.written, written, source_type=None, force=arguments.force)
    if arguments.json:
        told = {"before": captions.listed(probe.before), "after": captions.listed(probe.after)}
        made = drawing.save_all(probe.variations, outputs, arguments)
        console.result_json({"written": str(written), **told, "variations": made})
        return
    for name, matches in (("before", probe.before), ("after", probe.after)):
        console.result("\n".join([f"{name}:", *captions.rows(matches)]))
    console.result(str(written))
    drawing.deliver(probe.variations, outputs, arguments)
