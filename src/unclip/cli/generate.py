"""`unclip generate`: pictures from a prompt, or from each line of a file."""

import argparse
import sys
from pathlib import Path
from typing import Any

from unclip.cli import console, drawing, options
from unclip.cli.console import UsageError


def add(verbs) -> None:
    parser = options.verb(verbs, "generate", "draw pictures from a prompt")
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to draw, in quotes")
    parser.add_argument("--prompts", metavar="FILE", help="draw each line of a file instead; - reads stdin")
    parser.add_argument(
        "-n",
        "--number",
        type=options.positive,
        default=1,
        metavar="N",
        help="pictures of each prompt (default: 1)",
    )
    sampling = drawing.add_options(
        parser, output="a .png file, or a folder (default: here, named after prompt and seed)", prior=True
    )
    drawing.add_random(sampling)
    sampling.add_argument("--negative", metavar="TEXT", help="what to lead away from")
    sampling.add_argument(
        "--init", type=Path, metavar="FILE", help="start from this picture, not from noise alone"
    )
    sampling.add_argument(
        "--strength",
        type=options.number,
        metavar="X",
        help="how much of --init to redraw: near 0 keeps it, 1 hardly keeps its colours (default: 0.7)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    prompts = read_prompts(arguments.prompt, arguments.prompts)
    if arguments.strength is not None and (arguments.init is None or not 0 < arguments.strength <= 1):
        raise UsageError("--strength is above 0, up to 1, and goes with --init FILE")

    from unclip.generate.redraw import STRENGTH, redraw
    from unclip.generate.settings import seed_of
    from unclip.generate.sources import read_source
    from unclip.generate.text_to_image import generate_each

    init = None if arguments.init is None else read_source(arguments.init).image
    system = drawing.load(arguments)
    settings = drawing.settings(arguments, system)
    seed = drawing.choose_seed(arguments)
    repeated = [prompt for prompt in prompts for _ in range(arguments.number)]
    stems = [f"{drawing.slug(prompt)}-{seed_of(seed, index)}" for index, prompt in enumerate(repeated)]
    paths = drawing.plan_outputs(arguments, stems)
    with console.Progress(quiet=arguments.quiet) as progress:
        common: dict[str, Any] = {
            "settings": settings,
            "size": arguments.size,
            "negative": arguments.negative,
            "callback": drawing.reporter(progress),
        }
        if init is None:
            pictures = generate_each(system, prompts, n=arguments.number, seed=seed, **common)
        else:
            strength = arguments.strength or STRENGTH
            pictures = (
                next(redraw(system, init, prompt, strength=strength, seed=seed_of(seed, index), **common))
                for index, prompt in enumerate(repeated)
            )
        drawing.deliver(pictures, paths, arguments)


def read_prompts(prompt: str | None, file: str | None) -> list[str]:
    """The prompt, or the lines of `file` that are not blank. Raises `UsageError` where there is none, or both."""
    if (prompt is None) == (file is None):
        raise UsageError("say what to draw: either PROMPT or --prompts FILE")
    if file is None:
        lines = [prompt or ""]
    else:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        lines = text.splitlines()
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UsageError(
            "the prompt is empty; say what to draw" if file is None else f"{file} holds no prompt"
        )
    return prompts
