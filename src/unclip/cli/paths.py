"""What `interpolate` and `diff` share: pictures along a path, written as a strip, an animation, or one by one."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.cli import console, drawing, options

if TYPE_CHECKING:
    from unclip.generate.picture import Picture

ANIMATIONS = (".gif", ".webp")


def add_options(parser: argparse.ArgumentParser, *, number: int) -> None:
    """The options of a path of `number` pictures."""
    parser.add_argument(
        "-n",
        "--number",
        type=options.positive,
        default=number,
        metavar="N",
        help=f"pictures on the way (default: {number})",
    )
    parser.add_argument(
        "--milliseconds",
        type=options.positive,
        default=120,
        metavar="N",
        help="of each picture of an animation (default: 120)",
    )
    drawing.add_options(
        parser,
        output="a .png file for all side by side, .gif or .webp for an animation, or a folder for one file each",
        prior=False,
        grid=False,
    )


def thetas(arguments: argparse.Namespace, maximum: float = 1.0) -> list[float]:
    """Where on the way to `maximum` the pictures lie. Raises `UsageError` for fewer than 2."""
    from unclip.generate.interpolate import evenly

    with drawing.usage_errors():
        return evenly(arguments.number, maximum)


def plan_outputs(arguments: argparse.Namespace, stem: str) -> list[Path]:
    """Where the strip, the animation or each picture goes, checked before the first is drawn."""
    output = arguments.output
    if output is not None and drawing.is_folder(output):
        width = len(str(arguments.number))
        names = [f"{stem}-{index:0{width}}" for index in range(1, arguments.number + 1)]
        paths = drawing.name_outputs(output, names)
    else:
        paths = [Path(output or f"{stem}.png")]
        if paths[0].suffix.lower() not in ANIMATIONS:
            drawing.require_png(paths[0])
    return [options.writable(path, force=arguments.force) for path in paths]


def deliver(pictures: "Iterable[Picture]", paths: list[Path], arguments: argparse.Namespace) -> None:
    """Save the pictures as `plan_outputs` planned, and say where."""
    if arguments.output is not None and drawing.is_folder(arguments.output):
        drawing.deliver(pictures, paths, arguments)
        return

    from unclip.generate.sequence import save_animation, strip

    made, (path,) = list(pictures), paths
    together = strip(made)
    if path.suffix.lower() in ANIMATIONS:
        save_animation(made, path, milliseconds=arguments.milliseconds, force=arguments.force)
    else:
        together.save(path, force=arguments.force)
    if arguments.json:
        console.result_json([{"path": str(path), **together.recipe}])
    else:
        console.result(str(path))
