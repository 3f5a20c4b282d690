"""`unclip generate`: pictures from a prompt, or from each line of a file."""

import argparse
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.cli import console, options
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.generate.progress import Progress
    from unclip.generate.settings import Settings
    from unclip.generate.system import System


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
    options.add_seed(parser)
    options.add_output(parser, "named after prompt and seed")
    options.add_force(parser)
    options.add_model(parser)
    options.add_device(parser)
    add_sampling(parser)
    options.add_quiet(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """The options that shape how a picture is drawn; each default is the model's own."""
    group = parser.add_argument_group("sampling (the defaults are the model's)")
    group.add_argument("--size", type=options.positive, metavar="N", help="side in pixels")
    group.add_argument("--negative", metavar="TEXT", help="what to lead away from")
    group.add_argument("--steps", type=options.positive, metavar="N", help="decoder steps")
    group.add_argument(
        "--guidance", type=options.number, metavar="X", help="how strongly the decoder follows (1: not led)"
    )
    group.add_argument("--sampler", metavar="NAME", help="the decoder's sampler, such as euler or dpmpp_2m")
    group.add_argument("--prior-steps", type=options.positive, metavar="N", help="prior steps")
    group.add_argument(
        "--prior-guidance", type=options.number, metavar="X", help="how strongly the prior follows"
    )
    group.add_argument(
        "--candidates",
        type=options.positive,
        metavar="N",
        help="embeddings to draw for a picture; the best is taken",
    )
    group.add_argument(
        "--prior",
        choices=("diffusion", "text", "none"),
        help="where the image embedding comes from: the prior, the text embedding in its place, or nowhere",
    )
    group.add_argument(
        "--upsampler-steps", type=options.positive, metavar="N", help="steps of each upsampler"
    )


def run(arguments: argparse.Namespace) -> None:
    prompts = read_prompts(arguments.prompt, arguments.prompts)

    from unclip.generate.settings import seed_of
    from unclip.generate.text_to_image import generate_each
    from unclip.rng import draw_seed

    seed = draw_seed() if arguments.seed is None else arguments.seed
    repeated = [prompt for prompt in prompts for _ in range(arguments.number)]
    named = [(prompt, seed_of(seed, index)) for index, prompt in enumerate(repeated)]
    # All names are checked before the first picture is drawn: a minute's work must not end in "exists".
    paths = [options.writable(path, force=arguments.force) for path in name_outputs(arguments.output, named)]
    system = load(arguments)
    settings = read_settings(arguments, system)
    if arguments.seed is None:
        console.tell(f"seed {seed} was drawn; --seed {seed} draws the same again")

    made = []
    with console.Progress(quiet=arguments.quiet) as progress:
        pictures = generate_each(
            system,
            prompts,
            settings=settings,
            n=arguments.number,
            seed=seed,
            size=arguments.size,
            negative=arguments.negative,
            callback=reporter(progress),
        )
        for picture, path in zip(pictures, paths):
            picture.save(path, force=arguments.force)
            made.append({"path": str(path), **picture.recipe})
            if not arguments.json:
                console.result(str(path))
    if arguments.json:
        console.result_json(made)


def load(arguments: argparse.Namespace) -> "System":
    """The system that the options ask for, checked for the size."""
    from unclip.cli.loading import load

    system = load(arguments.model, arguments.device, arguments.dtype)
    if arguments.size is not None and arguments.size not in system.sizes:
        raise UsageError(
            f"--size {arguments.size}: the model {system.name!r} draws {', '.join(map(str, system.sizes))} pixels a side"
        )
    return system


def read_settings(arguments: argparse.Namespace, system: "System") -> "Settings":
    """The model's settings with the given options. Raises `UsageError` for a value out of its range."""
    names = (
        "steps",
        "guidance",
        "sampler",
        "prior_steps",
        "prior_guidance",
        "candidates",
        "prior",
        "upsampler_steps",
    )
    try:
        return system.defaults.with_given(**{name: getattr(arguments, name) for name in names})
    except ValueError as error:
        raise UsageError(str(error)) from None


def reporter(progress: console.Progress) -> "Callable[[Progress], None]":
    """A callback that shows on `progress` which picture and stage is at work."""

    def report(event: "Progress") -> None:
        which = f"picture {event.first + 1} of {event.pictures}, " if event.pictures > 1 else ""
        progress.update(event.fraction, which + event.stage)

    return report


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


def name_outputs(output: str | None, named: Sequence[tuple[str, int]]) -> list[Path]:
    """A path for each (prompt, seed): `output` itself, numbered if there are several, or names in the folder that it is.

    Raises `UsageError` for a name that is neither a folder's nor ends in .png.
    """
    path = Path(output or ".")
    if output is None or output.endswith(("/", "\\")) or path.is_dir():
        return [path / f"{slug(prompt)}-{seed}.png" for prompt, seed in named]
    if path.suffix.lower() != ".png":
        raise UsageError(f"{output}: pictures are written as PNG; end the name in .png, or in / for a folder")
    if len(named) == 1:
        return [path]
    width = len(str(len(named)))
    return [path.with_stem(f"{path.stem}-{index:0{width}}") for index in range(1, len(named) + 1)]


def slug(prompt: str) -> str:
    """A file name from a prompt: its words in lower case without accents, as many as fit into 48 characters."""
    plain = unicodedata.normalize("NFKD", prompt)
    words = re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)).lower())
    name = "-".join(words)
    return (name if len(name) <= 48 else name[:49].rpartition("-")[0] or name[:48]) or "picture"
