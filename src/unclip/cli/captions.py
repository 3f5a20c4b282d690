"""`unclip captions`: captions ranked by CLIP's similarity to a picture."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.cli import console, options
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.generate.probes import Match


def add(verbs) -> None:
    parser = options.verb(verbs, "captions", "rank captions by their similarity to a picture")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP file")
    add_captions(parser)
    parser.add_argument(
        "-n", "--number", type=options.positive, metavar="N", help="print the best N (default: all)"
    )
    options.add_model(parser)
    options.add_device(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    captions = read_captions(arguments)

    from unclip.cli.loading import load_for
    from unclip.generate.sources import read_source

    image = read_source(arguments.picture).image
    matches = load_for(arguments).nearest_captions(image, captions, k=arguments.number)
    if arguments.json:
        console.result_json(listed(matches))
    else:
        console.result("\n".join(rows(matches)))


def add_captions(parser: argparse.ArgumentParser) -> None:
    """The captions to choose from: on the command line, or in a file."""
    parser.add_argument("captions", nargs="*", metavar="CAPTION", help="to choose from, each in quotes")
    parser.add_argument(
        "--captions",
        dest="file",
        metavar="FILE",
        help="choose from the lines of a file too; - reads stdin",
    )


def read_captions(arguments: argparse.Namespace) -> list[str]:
    """The captions given, each once. Raises `UsageError` where there is none or one is empty."""
    given = list(arguments.captions)
    if not all(caption.strip() for caption in given):
        raise UsageError("a caption is empty; say what the picture may show")
    if arguments.file is not None:
        given += options.read_lines(arguments.file)
    if not given:
        raise UsageError("there is nothing to choose from; give captions, or --captions FILE")
    return list(dict.fromkeys(given))


def listed(matches: "Sequence[Match]") -> list[dict[str, object]]:
    """Matches for JSON."""
    return [
        {
            "caption": match.caption,
            "cosine": round(match.cosine, 4),
            "probability": round(match.probability, 4),
        }
        for match in matches
    ]


def rows(matches: "Sequence[Match]") -> list[str]:
    """A line for each match: its share, its cosine, its caption."""
    return [f"{match.probability:7.2%}  {match.cosine:+.3f}  {match.caption}" for match in matches]
