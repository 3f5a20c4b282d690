"""`unclip upscale`: a picture enlarged by the model's upsamplers."""

import argparse
from pathlib import Path

from unclip.cli import console, drawing, options


def add(verbs) -> None:
    parser = options.verb(verbs, "upscale", "enlarge a picture of any shape")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP file")
    parser.add_argument(
        "--size",
        type=options.positive,
        metavar="N",
        help="the longer side of the result in pixels, such as 1024 (default: what one upsampler makes of it)",
    )
    parser.add_argument("--steps", type=options.positive, metavar="N", help="steps of each upsampler")
    options.add_seed(parser)
    options.add_output(parser, "named after the picture and its new size")
    options.add_running(parser)
    parser.set_defaults(run=run, grid=None)


def run(arguments: argparse.Namespace) -> None:
    from unclip.cli.loading import load
    from unclip.generate.sources import read_source
    from unclip.generate.upscale import plan, upscale

    image = read_source(arguments.picture).image
    system = load(arguments.model, arguments.device, arguments.dtype, offload=arguments.offload)
    with drawing.usage_errors():
        settings = system.defaults.with_given(
            upsampler_steps=arguments.steps, second_upsampler_steps=arguments.steps
        )
        _, (width, height) = plan(system, *image.size, arguments.size)
    seed = drawing.choose_seed(arguments)
    outputs = drawing.plan_outputs(arguments, [f"{arguments.picture.stem}-{width}x{height}"])
    with console.Progress(quiet=arguments.quiet) as progress:
        picture = upscale(
            system,
            image,
            settings=settings,
            size=arguments.size,
            seed=seed,
            callback=drawing.reporter(progress),
        )
    drawing.deliver([picture], outputs, arguments)
