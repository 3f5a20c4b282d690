"""`unclip train`: train one stage of a recipe, or all; the same command resumes."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.cli import console, launch, options
from unclip.cli.console import UsageError
from unclip.train.registry import STAGES

if TYPE_CHECKING:
    from unclip.train.config import TrainConfig


def add(verbs) -> None:
    parser = options.verb(
        verbs,
        "train",
        "train one stage of a recipe, or all stages; the same command resumes a stopped run",
        epilog="The priors and the decoder need a trained CLIP: --clip is the --out of its run.\n"
        "all: every stage and a judge in folders of --out, then model/ (bundled) and report.json (measured).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "stage", choices=(*STAGES, "all"), metavar="STAGE", help=f"{', '.join(STAGES)}, or all"
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="training recipe (default: artwork; with --init, the model's own sizes)",
    )
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="fine-tune a part of this model: a folder, of a public format too, or a pulled hub id",
    )
    parser.add_argument(
        "--lora",
        type=options.positive,
        metavar="RANK",
        help="with --init: train a low-rank adapter of this rank beside the weights",
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="pictures with captions, such as `unclip data` makes"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="folder of the run")
    parser.add_argument("--clip", type=Path, metavar="FOLDER", help="finished run of the CLIP stage")
    parser.add_argument(
        "--seed",
        type=options.seed,
        metavar="N",
        help="seed of weights, order and noise (default: the recipe's)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting, such as optimizer.learning_rate=1e-4 (of all: decoder.batch=128, evaluation.count=20)",
    )
    parser.add_argument(
        "--budget",
        type=options.duration,
        metavar="TIME",
        help="training time, such as 25m, instead of the recipe's samples; keeps the best average",
    )
    parser.add_argument("--no-evaluate", action="store_true", help="with all: do not measure the model")
    parser.add_argument("--dry-run", action="store_true", help="print all settings as JSON without training")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 (default: the best there is)")
    options.add_json(parser)
    launch.add(parser)
    parser.set_defaults(run=run)


def _base(arguments: argparse.Namespace) -> "TrainConfig":
    """The recipe's config, or that of fine-tuning."""
    from dataclasses import replace

    from unclip import recipes
    from unclip.errors import ModelError
    from unclip.networks.adapter import AdapterConfig
    from unclip.recipes import finetune

    if arguments.init is not None and arguments.recipe is None:
        try:
            return finetune.config(arguments.stage, arguments.init, rank=arguments.lora)
        except (ValueError, FileNotFoundError, ModelError) as error:
            raise UsageError(f"--init: {error}") from None
    try:
        config = recipes.get(arguments.recipe or "artwork", arguments.stage)
    except ValueError as error:
        raise UsageError(f"--recipe: {error}") from None
    if arguments.init is None:
        return config
    adapter = None if arguments.lora is None else AdapterConfig(rank=arguments.lora)
    return replace(config, init=arguments.init, adapter=adapter)


def run(arguments: argparse.Namespace) -> None:
    if arguments.lora is not None and arguments.init is None:
        raise UsageError("--lora trains an adapter of a model: give --init MODEL")
    if arguments.launch is not None:
        status = launch.run(arguments, arguments.given)
        if status:
            raise SystemExit(status)
        return
    if arguments.stage == "all":
        if arguments.init is not None:
            raise UsageError("--init: `train all` trains every stage from the start; leave it out")
        from unclip.cli import chain

        chain.run(arguments)
        return

    from unclip.config import to_dict
    from unclip.train.config import ClipDependent, change

    config = _base(arguments)
    if arguments.clip is not None and not isinstance(config, ClipDependent):
        raise UsageError(f"--clip: the {arguments.stage} stage reads no CLIP; leave it out")
    named = {"data.path": arguments.data, "out": arguments.out, "clip": arguments.clip}
    given = [f"{key}={json.dumps(str(value))}" for key, value in named.items() if value is not None]
    if arguments.seed is not None:
        given.append(f"seed={arguments.seed}")
    if arguments.budget is not None:
        given.append("keep=best")
    try:
        config = change(config, [*given, *arguments.set])
    except ValueError as error:
        raise UsageError(f"--set: {error}") from None
    if arguments.dry_run:
        console.result_json(to_dict(config))
        return
    if not config.out:
        raise UsageError("give the run a folder: --out FOLDER")

    from unclip.cli.loading import read_device
    from unclip.train.budget import train_within
    from unclip.train.loop import train

    device = None if arguments.device is None else str(read_device(arguments.device))
    if arguments.budget is None:
        folder = train(config, device=device)
    else:
        folder = train_within(config, arguments.budget, device=device)
    if not is_main():
        return
    if arguments.json:
        console.result_json({"model": str(folder)})
    else:
        console.result(str(folder))


def is_main() -> bool:
    """Whether this process reports what several processes did."""
    from unclip.train.world import place_of

    place = place_of(os.environ)
    return place is None or place.rank == 0
