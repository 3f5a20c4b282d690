"""`unclip probe`: a typographic attack on CLIP, and the variations that the decoder makes of it."""

import argparse
from pathlib import Path

from unclip.cli import captions, console, draw, options, outputs
from unclip.cli.console import UsageError


def add(verbs, *, stub: bool = False) -> None:
    parser = options.verb(
        verbs, "probe", "typographic attack: write a word on a picture and see what CLIP reads"
    )
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP file")
    parser.add_argument("word", metavar="WORD", help="what to write across it")
    captions.add_captions(parser)
    parser.add_argument(
        "-n",
        "--number",
        dest="n",
        type=options.positive,
        default=4,
        metavar="N",
        help="variations of the picture with the word (default: 4)",
    )
    parser.add_argument("--size", type=options.whole, metavar="N", help="side of the variations in pixels")
    options.add_seed(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="a .png file, or a folder, for the variations; the picture with the word is written beside them",
    )
    parser.add_argument(
        "--grid", type=Path, metavar="FILE", help="write all variations on one sheet, and only that"
    )
    options.add_running(parser)
    if not stub:
        from unclip.cli.request_options import add_sampling

        add_sampling(
            parser.add_argument_group("sampling (the defaults are the model's)"), ("decoder", "upsamplers")
        )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if not arguments.word.strip():
        raise UsageError("the word is empty; say what to write on the picture")
    choices = captions.read_captions(arguments)

    from unclip.generate.operations import Vary

    request = draw.request_of(arguments, Vary)

    from unclip.cli.loading import load_for
    from unclip.generate.session import choose_seed, picture_seed
    from unclip.generate.sources import read_source
    from unclip.images import save_picture

    image = read_source(arguments.picture).image
    model = load_for(arguments)
    model.check(request, 1)
    seed = choose_seed(arguments.seed)
    if arguments.seed is None:
        console.tell(f"seed {seed} was drawn; --seed {seed} draws the same again")
    stem = f"{arguments.picture.stem}-{outputs.slug(arguments.word)}"
    stems = [f"{stem}-vary-{picture_seed(seed, index)}" for index in range(arguments.n)]
    paths = outputs.plan(arguments, stems)
    beside = next(path for path in (*paths, arguments.grid) if path is not None)
    written = options.writable(beside.with_name(f"{stem}.png"), force=arguments.force)
    with console.Progress(quiet=arguments.quiet) as progress:
        probe = model.probe(
            image,
            arguments.word,
            choices,
            n=arguments.n,
            seed=seed,
            size=arguments.size,
            sampling=request.sampling,
            on_progress=draw.reporter(progress),
        )
    save_picture(probe.written, written, source_type=None, force=arguments.force)
    if arguments.json:
        read = {"before": captions.listed(probe.before), "after": captions.listed(probe.after)}
        made = outputs.deliver(probe.variations, paths, arguments)
        console.result_json({"written": str(written), **read, "variations": made})
        return
    for name, matches in (("before", probe.before), ("after", probe.after)):
        console.result("\n".join([f"{name}:", *captions.rows(matches)]))
    console.result(str(written))
    outputs.deliver(probe.variations, paths, arguments)
