"""`unclip train all`: every stage of a recipe, one after the other, then the model packed and measured."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.cli import console
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.evaluate.evaluation import EvaluationConfig
    from unclip.train.config import TrainConfig

EVALUATION = "evaluation"


def run(arguments: argparse.Namespace) -> None:
    from unclip.cli.loading import read_device
    from unclip.config import to_dict
    from unclip.train.budget import train_all

    if arguments.clip is not None:
        raise UsageError("--clip: `train all` trains its own CLIP; leave it out")
    if arguments.out is None and not arguments.dry_run:
        raise UsageError("give the runs a folder: --out FOLDER")
    folder = arguments.out or Path()
    stages, questions = configs(arguments, folder)
    if arguments.dry_run:
        shown = {name: to_dict(config) for name, (config, _) in stages.items()}
        console.result_json(shown if questions is None else {**shown, "evaluation": to_dict(questions)})
        return
    device = None if arguments.device is None else str(read_device(arguments.device))
    train_all(stages, arguments.budget, device=device, report=console.tell)
    model = pack(folder, arguments.recipe, list(stages))
    made = {"model": str(model)}
    if questions is not None:
        made["report"] = str(evaluate(folder, questions, device, judged="judge" in stages))
    if arguments.json:
        console.result_json(made)
    else:
        console.result("\n".join(made.values()))


def configs(
    arguments: argparse.Namespace, folder: Path
) -> "tuple[dict[str, tuple[TrainConfig, float]], EvaluationConfig | None]":
    """Each stage's config with its run in `folder`, changed as the command line says, and its share of the budget.

    And what is asked of the model then; None for nothing.
    """
    from unclip import recipes
    from unclip.config import override
    from unclip.recipes import judge

    try:
        chain = recipes.chain(arguments.recipe, folder)
    except ValueError as error:
        raise UsageError(f"--recipe: {error}") from None
    if arguments.no_evaluate:
        chain.pop("judge", None)
    changes: dict[str, list[str]] = {name: [] for name in (*chain, EVALUATION)}
    for change in arguments.set:
        name, _, rest = change.partition(".")
        if name not in changes or not rest:
            raise UsageError(
                f"--set {change}: say of which stage: {', '.join(changes)}, such as clip.batch=128"
            )
        changes[name].append(rest)
    stages = {}
    for name, (config, share) in chain.items():
        given = [] if arguments.data is None else [f"data.path={json.dumps(arguments.data)}"]
        # The judge is the same for every seed, so that it compares them.
        if arguments.seed is not None and name != "judge":
            given.append(f"seed={arguments.seed}")
        if arguments.budget is not None and arguments.recipe not in recipes.KEEP_LAST:
            given.append("keep=best")
        try:
            stages[name] = override(config, [*given, *changes[name]]), share
        except ValueError as error:
            raise UsageError(f"--set: {name}: {error}") from None
    if arguments.no_evaluate:
        return stages, None
    try:
        questions = override(judge.evaluation(arguments.recipe), changes[EVALUATION])
    except ValueError as error:
        raise UsageError(f"--set: {EVALUATION}: {error}") from None
    return stages, replace(questions, data=stages["clip"][0].data.path)


def pack(folder: Path, recipe: str, stages: list[str]) -> Path:
    """The model folder of all stages but the judge, in `folder`: named after the recipe, sampled as it says, in int8."""
    from unclip import recipes
    from unclip.cli import pack

    return pack.joined(
        [folder / stage for stage in stages if stage not in recipes.beside(recipe)],
        folder / "model",
        recipe,
        defaults=recipes.sampling(recipe),
        force=True,
    )


def evaluate(folder: Path, config: "EvaluationConfig", device: str | None, *, judged: bool) -> Path:
    """Measure the packed model, by the chain's judge if it has one; the report's file.

    A report of the same weights and questions is left alone.
    """
    from unclip.cli.loading import load
    from unclip.config import to_dict
    from unclip.evaluate.estimate import estimate
    from unclip.evaluate.evaluation import Evaluation
    from unclip.evaluate.features import Encoder
    from unclip.evaluate.report import evaluate, table
    from unclip.images import write_atomically

    file = folder / "report.json"
    system = load(str(folder / "model"), device, None)
    if file.exists():
        measured = json.loads(file.read_text(encoding="utf-8"))
        same = measured["config"] == {**json.loads(json.dumps(to_dict(config))), "data": None}
        if same and measured["model"]["weights"] == system.weights:
            return file
    with console.Status() as status:
        evaluation = Evaluation(
            system,
            config,
            judge=Encoder.load(folder / "judge", system.device) if judged else None,
            folder=folder / "pictures",
            cache=folder / "cache",
            report=status,
        )
        console.tell(f"evaluation: {estimate(evaluation)}; --set {EVALUATION}.count=20 asks less")
        report = evaluate(evaluation)
    write_atomically(file, (json.dumps(report, indent=2) + "\n").encode(), force=True)
    console.tell(table(report))
    return file
