"""`unclip train all`: every stage of a recipe, one after the other, then the model bundled and measured."""

import argparse
from pathlib import Path

from unclip.cli import console
from unclip.cli.console import UsageError


def run(arguments: argparse.Namespace) -> None:
    from unclip import recipes
    from unclip.cli.loading import read_device
    from unclip.cli.train import is_main
    from unclip.config import ConfigError, to_dict
    from unclip.train.chain import train_chain

    if arguments.clip is not None:
        raise UsageError("--clip: `train all` trains its own CLIP; leave it out")
    if arguments.out is None and not arguments.dry_run:
        raise UsageError("give the runs a folder: --out FOLDER")
    try:
        chain = recipes.chain(
            arguments.recipe or "artwork",
            arguments.out or Path(),
            data=arguments.data,
            seed=arguments.seed,
            keep_best=arguments.budget is not None,
            evaluate=not arguments.no_evaluate,
            changes=arguments.set,
        )
    except ConfigError as error:
        raise UsageError(f"--set: {error}") from None
    except ValueError as error:
        raise UsageError(f"--recipe: {error}") from None
    if arguments.dry_run:
        shown = {name: to_dict(config) for name, (config, _) in chain.stages.items()}
        if chain.evaluation is not None:
            shown[recipes.EVALUATION] = to_dict(chain.evaluation)
        console.result_json(shown)
        return
    device = None if arguments.device is None else str(read_device(arguments.device))
    with console.Status() as status:
        trained = train_chain(chain, budget=arguments.budget, device=device, on_status=status)
    if not is_main():
        return
    made = {name: str(path) for name, path in trained._asdict().items() if path is not None}
    if arguments.json:
        console.result_json(made)
    else:
        console.result("\n".join(made.values()))
