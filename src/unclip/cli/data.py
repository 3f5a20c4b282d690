"""`unclip data`: build the data sets that the recipes train on, index and select them."""

import argparse
import logging
from pathlib import Path

from unclip.cli import console, options, select_data


def add(verbs) -> None:
    parser = verbs.add_parser(
        "data", help="build, index and select data sets", description="Build, index and select data sets."
    )
    sets = parser.add_subparsers(title="data sets", metavar="SET", required=True)

    artwork = options.verb(sets, "artwork", "build captioned pictures from five open icon sets")
    artwork.add_argument("out", type=Path, metavar="FOLDER", help="where the shards go")
    artwork.add_argument(
        "--packages",
        type=Path,
        default=Path("artwork/node_modules"),
        metavar="FOLDER",
        help="where npm put the icon sets (default: artwork/node_modules)",
    )
    artwork.add_argument(
        "--size", type=options.positive, default=256, metavar="N", help="side in pixels (default: 256)"
    )
    artwork.add_argument(
        "--limit", type=options.positive, metavar="N", help="use only N drawings, for a trial"
    )
    artwork.add_argument(
        "--workers", type=options.positive, metavar="N", help="processes (default: one a core)"
    )
    artwork.add_argument(
        "--seed",
        type=options.seed,
        default=0,
        metavar="N",
        help="another seed gives other compositions (default: 0)",
    )
    options.add_quiet(artwork)
    options.add_json(artwork)
    artwork.set_defaults(run=run_artwork)

    index = options.verb(
        sets, "index", "write indexes of tar shards, so that they open at once and at random"
    )
    index.add_argument("data", metavar="DATA", help="folder or URL (s3://...) of .tar files")
    index.add_argument(
        "--bad-share",
        type=options.number,
        default=0.01,
        metavar="X",
        help="share of bad samples from which on it is an error (default: 0.01)",
    )
    options.add_json(index)
    index.set_defaults(run=run_index)
    select_data.add(sets)


def run_index(arguments: argparse.Namespace) -> None:
    from unclip.data.stream.faults import Faults
    from unclip.data.stream.index import write_indexes

    faults = Faults(min(1.0, arguments.bad_share), option="--bad-share")
    count = write_indexes(arguments.data, faults=faults)
    if faults.counts:
        console.tell(f"note: {faults.summary()}")
    if arguments.json:
        console.result_json({"samples": count, "faults": faults.counts})
    else:
        console.result(f"{count} samples")


def run_artwork(arguments: argparse.Namespace) -> None:
    from unclip.config import to_dict
    from unclip.datasets.artwork import build as artwork

    if arguments.quiet:
        logging.getLogger("unclip").setLevel(logging.WARNING)
    built = artwork.build(
        arguments.out,
        packages=arguments.packages,
        size=arguments.size,
        limit=arguments.limit,
        workers=arguments.workers,
        seed=arguments.seed,
    )
    if arguments.json:
        console.result_json(to_dict(built) | {"folder": str(built.folder)})
        return
    console.result(str(built.folder))
    for split, count in built.counts.items():
        console.result(f"  {split}: {count} pictures")
