"""`unclip generate --ray`: the pictures that the command draws alone, drawn on a cluster, some at a time."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unclip.cli import cluster, console, outputs
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.cli.draw import Job


def run(job: "Job", arguments: argparse.Namespace) -> None:
    """Draw the pictures of `generate`; those that are there already are not drawn again."""
    from unclip.batch.draw import DrawWork
    from unclip.generate.operations import Generate
    from unclip.generate.session import picture_seed

    request, sources = job.requests[0]
    if sources or not isinstance(request, Generate):
        raise UsageError("--ray draws prompts only; leave --init out")
    if arguments.grid is not None or arguments.part:
        raise UsageError("--ray writes each picture of one model to a file: leave --grid and --part out")
    if arguments.backend not in (None, "torch"):
        raise UsageError("--ray computes with torch: leave --backend out")
    if arguments.seed is None:
        raise UsageError(
            "--ray needs --seed, so that the same command goes on where it stopped; give --seed 0, or another"
        )
    prompts = [request.prompt] if isinstance(request.prompt, str) else list(request.prompt)
    repeated = [prompt for prompt in prompts for _ in range(request.n)]
    anything: Any = None
    paths = outputs.name_outputs(arguments.output, job.stems(anything, arguments.seed))
    one = replace(request, n=1)
    requests = [
        replace(one, prompt=prompt, seed=picture_seed(arguments.seed, index))
        for index, prompt in enumerate(repeated)
    ]
    work = DrawWork(
        requests, paths, model=arguments.model, device=arguments.device, dtype=arguments.dtype or "float32"
    )
    cluster.do(work, arguments, quietly=True)
    if arguments.json:
        console.result_json([{"path": str(path)} for path in paths])
    else:
        console.result("\n".join(str(path) for path in paths))
