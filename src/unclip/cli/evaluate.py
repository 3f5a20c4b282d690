"""`unclip evaluate`: measure a model on captions it has seen and on combinations it has not."""

import argparse
import json
from pathlib import Path

from unclip.cli import console, options
from unclip.cli.console import UsageError

ABLATIONS = ("priors", "guidance", "prior-guidance", "candidates", "samplers")


def add(verbs) -> None:
    parser = options.verb(
        verbs,
        "evaluate",
        "measure a model: captions followed, distances to real drawings, retrieval, memorisation",
        epilog="Pictures are kept beside the report: the same command again draws only what is missing.",
    )
    parser.add_argument(
        "--recipe", default="artwork", metavar="NAME", help="what is asked (default: artwork)"
    )
    options.add_model(parser)
    parser.add_argument("--data", metavar="FOLDER", help="the data set that the model was trained on")
    parser.add_argument(
        "--judge",
        type=Path,
        metavar="FOLDER",
        help="a CLIP trained apart, to judge (default: the model's own, which flatters it)",
    )
    parser.add_argument(
        "--count", type=options.positive, metavar="N", help="captions of each group (default: the recipe's)"
    )
    parser.add_argument(
        "--seed", type=options.seed, metavar="N", help="of questions and pictures (default: the recipe's)"
    )
    parser.add_argument(
        "--ablation",
        action="append",
        choices=ABLATIONS,
        default=[],
        metavar="NAME",
        help=f"compare settings too, may be given again: {', '.join(ABLATIONS)}",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.json"),
        metavar="FILE",
        help="where the report goes, with a folder of pictures beside it (default: report.json)",
    )
    options.add_force(parser)
    options.add_device(parser)
    options.add_quiet(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.config import override
    from unclip.recipes import judge

    output = options.writable(arguments.output, force=arguments.force)
    try:
        config = judge.evaluation(arguments.recipe)
    except ValueError as error:
        raise UsageError(f"--recipe: {error}") from None
    named = {"data": arguments.data, "count": arguments.count, "seed": arguments.seed}
    config = override(
        config, [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
    )
    if not config.data:
        raise UsageError("give the data set that the model was trained on: --data FOLDER")

    from unclip.cli.loading import load
    from unclip.evaluate.evaluation import Evaluation
    from unclip.evaluate.features import Encoder
    from unclip.evaluate.report import evaluate, table

    system = load(arguments.model, arguments.device, arguments.dtype)
    evaluation = Evaluation(
        system,
        config,
        judge=None if arguments.judge is None else Encoder.load(arguments.judge, system.device),
        folder=output.with_name(f"{output.stem}-pictures"),
        cache=output.parent / "cache",
        report=(lambda line: None) if arguments.quiet else console.tell,
    )
    report = evaluate(evaluation, arguments.ablation)
    output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.json:
        console.result_json(report)
    else:
        console.result(table(report))
