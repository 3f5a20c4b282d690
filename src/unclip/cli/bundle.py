"""`unclip bundle`: trained stages joined to one model folder, stored small; `pack` is its deprecated alias."""

import argparse
from pathlib import Path

from unclip.cli import console, options
from unclip.cli.console import UsageError


def add(verbs) -> None:
    parser = options.verb(
        verbs, "bundle", "join trained stages to one model folder, stored small", aliases=("pack",)
    )
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="FOLDER", help="finished runs, or model folders"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the model goes"
    )
    parser.add_argument("--name", metavar="NAME", help="the model's name (default: the folder's)")
    parser.add_argument("--description", default="", metavar="TEXT", help="one line for `unclip models`")
    parser.add_argument("--licence", default="", metavar="TEXT", help="the licence of the weights")
    parser.add_argument(
        "--storage",
        choices=("float32", "float16", "int8"),
        default="int8",
        help="how weights are stored (default: int8)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a default of sampling, such as steps=20",
    )
    options.add_adapters(parser)
    options.add_force(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.checkpoints.manifest import describe
    from unclip.stages.sampling import assigned
    from unclip.train.bundle import BundleError, bundle

    try:
        defaults = assigned(arguments.set)
    except ValueError as error:
        raise UsageError(f"--set: {error}") from None
    try:
        folder = bundle(
            arguments.sources,
            arguments.out,
            arguments.name or arguments.out.name,
            defaults=defaults,
            description=arguments.description,
            licence=arguments.licence,
            storage=arguments.storage,
            adapters={Path(path): strength for path, strength in arguments.adapter},
            force=arguments.force,
        )
    except BundleError as error:
        raise UsageError(str(error)) from None
    if arguments.json:
        console.result_json({**describe(folder), "folder": str(arguments.out)})
    else:
        console.result(str(arguments.out))
