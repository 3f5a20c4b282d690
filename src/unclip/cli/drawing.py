"""What all verbs that draw share: their options, the names of their files, and how pictures reach the user."""

import argparse
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.cli import console, options
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.generate.picture import Picture
    from unclip.generate.progress import Progress
    from unclip.generate.settings import Knobs, Settings
    from unclip.generate.system import System

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
KNOBS = ("steps", "guidance", "sampler", "upsampler_steps", "second_upsampler_steps", "random", "fast")
PRIOR_KNOBS = ("prior_steps", "prior_guidance", "candidates", "prior")


def add_options(
    parser: argparse.ArgumentParser, *, output: str, prior: bool, grid: bool = True, size: bool = True
) -> argparse._ArgumentGroup:
    """Seed, output, model and device, and the sampling options, whose group is returned.

    `prior` adds the prior's, `grid` a sheet of all pictures, `size` the side of the pictures.
    """
    options.add_seed(parser)
    parser.add_argument("-o", "--output", metavar="PATH", help=output)
    if grid:
        parser.add_argument(
            "--grid", type=Path, metavar="FILE", help="lay all pictures out on one sheet, and write only that"
        )
    else:
        parser.set_defaults(grid=None)
    options.add_running(parser)
    group = parser.add_argument_group("sampling (the defaults are the model's)")
    if size:
        group.add_argument(
            "--size",
            type=options.positive,
            metavar="N",
            help="side in pixels (default: what the first upsampler makes)",
        )
    else:
        parser.set_defaults(size=None)
    group.add_argument(
        "--fast",
        action="store_true",
        default=None,
        help="few steps of a better solver, guided in part: quicker, and another picture",
    )
    group.add_argument("--steps", type=options.positive, metavar="N", help="decoder steps")
    group.add_argument(
        "--guidance", type=options.number, metavar="X", help="how strongly the decoder follows (1: not led)"
    )
    group.add_argument("--sampler", metavar="NAME", help="the decoder's sampler, such as euler or dpmpp_2m")
    group.add_argument(
        "--upsampler-steps", type=options.positive, metavar="N", help="steps of the first upsampler"
    )
    group.add_argument(
        "--second-upsampler-steps",
        type=options.positive,
        metavar="N",
        help="steps of the second, where it runs",
    )
    if prior:
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
            choices=("diffusion", "autoregressive", "text", "none"),
            help="where the image embedding comes from: a prior, the text embedding in its place, or nowhere",
        )
    return group


def choose_seed(arguments: argparse.Namespace) -> int:
    """`--seed`, or a drawn one, which is told."""
    from unclip.rng import draw_seed

    if arguments.seed is not None:
        return arguments.seed
    seed = draw_seed()
    console.tell(f"seed {seed} was drawn; --seed {seed} draws the same again")
    return seed


def load(arguments: argparse.Namespace) -> "System":
    """The system that the options ask for, checked for the size."""
    from unclip.cli.loading import load

    system = load(arguments.model, arguments.device, arguments.dtype, offload=arguments.offload)
    if arguments.size is not None and arguments.size not in system.sizes:
        raise UsageError(
            f"--size {arguments.size}: the model {system.name!r} draws {', '.join(map(str, system.sizes))} pixels a side"
        )
    return system


def add_random(group: argparse._ArgumentGroup) -> None:
    """The option for who compares with diffusers."""
    group.add_argument(
        "--random",
        choices=("unclip", "diffusers"),
        help="how a seed becomes noise: diffusers' order of draws gives its pictures (default: unclip)",
    )


def knobs(arguments: argparse.Namespace) -> "Knobs":
    """The sampling options by their names; None where one was not given."""
    given: Any = {name: getattr(arguments, name) for name in (*KNOBS, *PRIOR_KNOBS) if name in arguments}
    return given


def settings(arguments: argparse.Namespace, system: "System", *, inverted: bool = False) -> "Settings":
    """The model's settings, or those of an inversion, with the options given. Raises `UsageError` for unfit ones."""
    from unclip.generate.inversion import drawing_settings

    with usage_errors():
        return drawing_settings(system.defaults, knobs(arguments), inverted=inverted)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turns the complaints of settings about values into `UsageError`: the values were options."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from None


def reporter(progress: console.Progress) -> "Callable[[Progress], None]":
    """A callback that shows on `progress` which picture and stage is at work."""

    def report(event: "Progress") -> None:
        which = f"picture {event.first + 1} of {event.pictures}, " if event.pictures > 1 else ""
        progress.update(event.fraction, which + event.stage)

    return report


def plan_outputs(arguments: argparse.Namespace, stems: Sequence[str]) -> list[Path | None]:
    """Where each picture goes, checked before the first is drawn: a minute's work must not end in "exists".

    None where only the grid is wanted. Raises `UsageError` for names that are no PNG's, and `OSError` like `writable`.
    """
    if arguments.grid is not None:
        require_png(arguments.grid)
        options.writable(arguments.grid, force=arguments.force)
        if arguments.output is None:
            return [None] * len(stems)
    return [options.writable(path, force=arguments.force) for path in name_outputs(arguments.output, stems)]


def deliver(
    pictures: "Iterable[Picture]", paths: Sequence[Path | None], arguments: argparse.Namespace
) -> None:
    """Save each picture when it is finished and say where; then the grid, or the JSON of all."""
    made = save_all(pictures, paths, arguments)
    if arguments.json:
        console.result_json(made)


def save_all(
    pictures: "Iterable[Picture]", paths: Sequence[Path | None], arguments: argparse.Namespace
) -> Any:
    """`deliver` without the JSON, which is returned."""
    made, images = [], []
    for picture, path in zip(pictures, paths):
        images.append(picture.image)
        made.append(dict(picture.recipe))
        if path is not None:
            picture.save(path, force=arguments.force)
            made[-1] = {"path": str(path), **picture.recipe}
            if not arguments.json:
                console.result(str(path))
    if arguments.grid is not None:
        from unclip.images import grid, save_picture

        save_picture(grid(images, gap=8), arguments.grid, force=arguments.force)
        if not arguments.json:
            console.result(str(arguments.grid))
    return made if arguments.grid is None else {"path": str(arguments.grid), "pictures": made}


def name_outputs(output: str | None, stems: Sequence[str]) -> list[Path]:
    """A path for each picture: `output` itself, numbered if there are several, or `stems` in the folder that it is.

    Raises `UsageError` for a name that is neither a folder's nor ends in .png.
    """
    path = Path(output or ".")
    if output is None or is_folder(output):
        return [path / f"{stem}.png" for stem in stems]
    require_png(path)
    if len(stems) == 1:
        return [path]
    width = len(str(len(stems)))
    return [path.with_stem(f"{path.stem}-{index:0{width}}") for index in range(1, len(stems) + 1)]


def is_folder(output: str) -> bool:
    """Whether `-o` names a folder: one that is there, or ends like one."""
    return output.endswith(("/", "\\")) or Path(output).is_dir()


def require_png(path: Path) -> None:
    """Raise `UsageError` unless the name is one of a PNG file."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: pictures are written as PNG; end the name in .png, or in / for a folder")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name. Raises `UsageError` where there are fewer than two."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if len(found) < 2:
        raise UsageError(f"{folder}: it holds {len(found)} pictures; give 2 or more")
    return found


def slug(prompt: str) -> str:
    """A file name from a prompt: its words in lower case without accents, as many as fit into 48 characters."""
    plain = unicodedata.normalize("NFKD", prompt)
    words = re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)).lower())
    name = "-".join(words)
    return (name if len(name) <= 48 else name[:49].rpartition("-")[0] or name[:48]) or "picture"
