"""`unclip generate`: pictures from a prompt, or from each line of a file."""

import argparse
import sys
from pathlib import Path

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
    sampling.add_argument("--negative", metavar="TEXT", help="what to lead away from")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    prompts = read_prompts(arguments.prompt, arguments.prompts)

    from unclip.generate.settings import seed_of
    from unclip.generate.text_to_image import generate_each

    system = drawing.load(arguments)
    with drawing.usage_errors():
        settings = system.defaults.with_given(**drawing.knobs(arguments))
    seed = drawing.choose_seed(arguments)
    repeated = [prompt for prompt in prompts for _ in range(arguments.number)]
    stems = [f"{drawing.slug(prompt)}-{seed_of(seed, index)}" for index, prompt in enumerate(repeated)]
    paths = drawing.plan_outputs(arguments, stems)
    with console.Progress(quiet=arguments.quiet) as progress:
        pictures = generate_each(
            system,
            prompts,
            settings=settings,
            n=arguments.number,
            seed=seed,
            size=arguments.size,
            negative=arguments.negative,
            callback=drawing.reporter(progress),
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
