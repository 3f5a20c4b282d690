"""`unclip convert`: public weights as a model folder; the only way in for pickled files."""

import argparse
from pathlib import Path

from unclip.cli import console, options


def add(verbs) -> None:
    parser = options.verb(
        verbs, "convert", "write public weights as a model folder; reads pickled files safely"
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a folder in diffusers', transformers' or OpenCLIP's layout, of Karlo's checkpoints, of LAION's prior, or OpenAI's CLIP file",
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the model goes"
    )
    parser.add_argument("--name", metavar="NAME", help="the model's name (default: the folder's)")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="PATH",
        help="a folder with CLIP's tokenizer or OpenAI's bpe_simple_vocab_16e6.txt.gz, for weights that come without",
    )
    parser.add_argument(
        "--storage",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="how weights are stored (default: float32)",
    )
    parser.add_argument(
        "--licence", metavar="TEXT", help="the licence of the weights (default: the source's)"
    )
    options.add_force(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.checkpoints.manifest import describe
    from unclip.formats.convert import convert
    from unclip.formats.registry import resolve

    source = arguments.source if arguments.source.exists() else resolve(str(arguments.source))
    folder = convert(
        source,
        arguments.out,
        name=arguments.name,
        tokenizer=arguments.tokenizer,
        storage=arguments.storage,
        licence=arguments.licence,
        force=arguments.force,
    )
    if arguments.json:
        console.result_json({**describe(folder), "folder": str(arguments.out)})
    else:
        console.result(str(arguments.out))
