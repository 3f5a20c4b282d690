"""`unclip convert`: write a model of a public format as a model folder; the only reader of pickled files."""

import argparse
from pathlib import Path

from unclip.cli import console, options


def add(verbs) -> None:
    parser = options.verb(
        verbs, "convert", "convert public weights to a model folder; reads pickled files safely"
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="folder in diffusers', transformers' or OpenCLIP's layout, folder of Karlo's checkpoints or LAION's prior, a file with OpenAI's CLIP or a Stable Diffusion, or hub id that was pulled",
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="model folder to write"
    )
    parser.add_argument("--name", metavar="NAME", help="name of the model (default: name of the folder)")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="PATH",
        help="folder with CLIP's tokenizer, or OpenAI's bpe_simple_vocab_16e6.txt.gz, for weights without a tokenizer",
    )
    parser.add_argument(
        "--storage",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="number type of the stored weights (default: float32)",
    )
    parser.add_argument(
        "--licence", metavar="TEXT", help="licence of the weights (default: that of the source)"
    )
    parser.add_argument(
        "--prediction",
        choices=("eps", "v"),
        help="what the U-Net of a Stable Diffusion in one file predicts (default: eps for version 1; to be given for 2)",
    )
    parser.add_argument(
        "--last",
        action="store_true",
        help="take the last weights of a Stable Diffusion in one file, not the averaged ones that it may hold too",
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
        prediction=arguments.prediction,
        averaged=not arguments.last,
        force=arguments.force,
    )
    if arguments.json:
        console.result_json({**describe(folder), "folder": str(arguments.out)})
    else:
        console.result(str(arguments.out))
