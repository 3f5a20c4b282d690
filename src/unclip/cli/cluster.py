"""Batch work of a command, here or on a Ray cluster as its options say."""

import argparse
from typing import TYPE_CHECKING

from unclip.cli import console

if TYPE_CHECKING:
    from unclip.batch.work import Outcome, Report, Work


def do(work: "Work", arguments: argparse.Namespace, *, quietly: bool = False) -> None:
    """Run a work where the options say, and print what came of it unless `quietly`. Raises `UnitsFailed`."""
    with console.Status(quiet=arguments.quiet) as status:

        def report(done: int, of: int) -> None:
            status(f"{done} of {of} units")

        outcome = run(work, arguments, report)
    if quietly:
        pass
    elif arguments.json:
        console.result_json({"done": outcome.done, "before": outcome.before, "failed": outcome.failed})
    else:
        console.result(f"{outcome.done} units done, {outcome.before} were done before")
    check(outcome)


def run(work: "Work", arguments: argparse.Namespace, report: "Report") -> "Outcome":
    """Run a work where the options say; units that failed are in what came of it."""
    from unclip.batch.work import run_here

    if arguments.ray is None:
        return run_here(work, report)
    from unclip.batch.on_ray import Cluster, run_on_ray

    cluster = Cluster(
        address=arguments.ray,
        gpus=arguments.ray_gpus,
        encoders=arguments.ray_workers or (1, 1_000_000),
    )
    return run_on_ray(work, cluster, report)


def check(outcome: "Outcome") -> None:
    """Raise `UnitsFailed` where a unit failed."""
    from unclip.batch.work import UnitsFailed

    if outcome.failed:
        name, reason = next(iter(outcome.failed.items()))
        raise UnitsFailed(
            f"{len(outcome.failed)} units failed, such as {name} ({reason}): the same command tries them again"
        )
