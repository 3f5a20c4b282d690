"""`unclip evaluate`: metrics of a model."""

import argparse
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.cli import cluster, console, options
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.evaluate.config import EvaluationConfig
    from unclip.evaluate.pictures import DrawFiles, Report
    from unclip.generate.operations import Generate


def add(verbs) -> None:
    parser = options.verb(
        verbs, "evaluate", "measure a model: captions followed, distances, retrieval, memorisation, ablations"
    )
    options.add_model(parser)
    parser.add_argument(
        "--recipe",
        default="artwork",
        metavar="NAME",
        help="recipe whose questions are asked (default: artwork)",
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="data set of pictures with captions, as `unclip data` makes"
    )
    parser.add_argument(
        "--judge",
        type=Path,
        metavar="FOLDER",
        help="CLIP that judges, trained separately (default: the model's own, which flatters the model)",
    )
    parser.add_argument(
        "--ablation",
        action="append",
        default=[],
        metavar="NAME",
        help="ablation to run as well: priors, guidance, prior-guidance, candidates, samplers, or all; repeatable",
    )
    parser.add_argument(
        "--manipulation",
        action="append",
        default=[],
        metavar="NAME",
        help="manipulation to measure as well: reconstructions, diffs, edits, or all; repeatable",
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FOLDER",
        help="measure nothing: write a sheet of drawn and real pictures to name by eye, and its key, to this folder",
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="write the whole report to this file, as JSON"
    )
    options.add_force(parser)
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="keep the drawn pictures here, so that a stopped command can be continued",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keep decoded drawings and their embeddings here"
    )
    parser.add_argument("--seed", type=options.seed, metavar="N", help="seed of the questions (default: 0)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting, such as count=20"
    )
    options.add_device(parser, dtype="float32")
    options.add_backend(parser)
    parser.set_defaults(dtype="float32")
    options.add_cluster(parser)
    options.add_quiet(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.cli.loading import load_for
    from unclip.config import override
    from unclip.evaluate.ablations import ABLATIONS
    from unclip.evaluate.estimate import estimate
    from unclip.evaluate.evaluation import Evaluation
    from unclip.evaluate.features import Encoder
    from unclip.evaluate.manipulations import MANIPULATIONS
    from unclip.evaluate.report import evaluate, table
    from unclip.images import write_atomically
    from unclip.recipes import judge

    ablations = chosen("ablation", arguments.ablation, ABLATIONS)
    manipulations = chosen("manipulation", arguments.manipulation, MANIPULATIONS)
    given = [] if arguments.data is None else [f"data={json.dumps(arguments.data)}"]
    given += [] if arguments.seed is None else [f"seed={arguments.seed}"]
    try:
        config = override(judge.evaluation(arguments.recipe), [*given, *arguments.set])
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not config.data:
        raise UsageError(
            "name the data to measure with: --data FOLDER (`unclip data artwork FOLDER` makes it)"
        )
    if arguments.sheet is not None:
        sheet(arguments, config)
        return
    elsewhere = None if arguments.ray is None else on_cluster(arguments, config.batch)
    out = None if arguments.out is None else options.writable(arguments.out, force=arguments.force)
    model = load_for(arguments)
    with console.Status(quiet=arguments.quiet) as status:
        evaluation = Evaluation(
            model,
            config,
            judge=None if arguments.judge is None else Encoder.load(arguments.judge, model.parts.device),
            folder=arguments.pictures,
            cache=arguments.cache,
            report=status,
            elsewhere=elsewhere,
        )
        if not arguments.quiet and elsewhere is None:
            expected = estimate(evaluation, ablations, manipulations)
            console.tell(f"{expected}; --set count=20 --set ablation_count=10 --set manipulated=10 asks less")
        report = evaluate(evaluation, ablations, manipulations)
    if out is not None:
        write_atomically(out, (json.dumps(report, indent=2) + "\n").encode(), force=arguments.force)
    if arguments.json:
        console.result_json(report)
    else:
        console.result(table(report))


def sheet(arguments: argparse.Namespace, config: "EvaluationConfig") -> None:
    """Write the sheet for naming by eye. Raises `UsageError` for an option that it has no use for."""
    from unclip.cli.loading import load_for
    from unclip.evaluate.sheet import write_sheet

    given = {name: getattr(arguments, name) for name in ("judge", "ablation", "manipulation", "out", "ray")}
    if unused := [name for name, value in given.items() if value]:
        raise UsageError(f"--sheet measures nothing: leave out --{', --'.join(unused)}")
    model = load_for(arguments)
    with console.Status(quiet=arguments.quiet) as status:
        files = write_sheet(
            model, config, arguments.sheet, pictures=arguments.pictures, cache=arguments.cache, report=status
        )
    if arguments.json:
        console.result_json([str(file) for file in files])
    else:
        console.result("\n".join(map(str, files)))


def on_cluster(arguments: argparse.Namespace, batch: int) -> "DrawFiles":
    """Drawing of the pictures of captions on the Ray cluster that the options name. Raises `UsageError` where it cannot."""
    if arguments.pictures is None:
        raise UsageError("--ray needs --pictures FOLDER, where the drawn pictures are kept")
    if arguments.backend not in (None, "torch"):
        raise UsageError("--ray computes with torch: leave --backend out")
    if arguments.part or arguments.adapter:
        raise UsageError(
            "--ray draws with one model: leave --part and --adapter out, or bundle them (`unclip bundle`)"
        )

    def draw(requests: "Sequence[Generate]", files: Sequence[Path], report: "Report") -> None:
        from unclip.batch.draw import DrawWork

        work = DrawWork(
            requests,
            files,
            model=arguments.model,
            batch=batch,
            device=arguments.device,
            dtype=arguments.dtype,
        )
        outcome = cluster.run(
            work, arguments, lambda done, of: report(min(done * batch, len(files)), len(files))
        )
        cluster.check(outcome)

    return draw


def chosen(option: str, names: Sequence[str], known: Collection[str]) -> list[str]:
    """Names given to an option, each once; `all` stands for all. Raises `UsageError` for an unknown name."""
    if unknown := [name for name in names if name != "all" and name not in known]:
        raise UsageError(f"--{option} {unknown[0]}: choose from {', '.join(known)}, all")
    return list(known) if "all" in names else list(dict.fromkeys(names))
