"""`unclip embed`: CLIP image embeddings of a data set, shard by shard, in this process or on a Ray cluster."""

import argparse

from unclip.cli import console, options
from unclip.cli.console import UsageError


def add(verbs) -> None:
    parser = options.verb(
        verbs,
        "embed",
        "embed the pictures of a data set with CLIP; the same command goes on where it stopped",
    )
    parser.add_argument(
        "data", metavar="DATA", help="folder or URL (s3://...) of tar shards, parquet or pictures"
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="FOLDER",
        help="where the sidecar files go, a folder or a URL (default: beside the data)",
    )
    parser.add_argument("--split", metavar="NAME", help="only the shards named NAME-SPLIT-NUMBER")
    parser.add_argument(
        "--batch",
        type=options.positive,
        default=64,
        metavar="N",
        help="pictures that are embedded together (default: 64)",
    )
    parser.add_argument(
        "--bad-share",
        type=options.number,
        default=0.01,
        metavar="X",
        help="share of bad pictures from which on a shard fails (default: 0.01)",
    )
    options.add_model(parser)
    options.add_device(parser)
    add_cluster(parser)
    options.add_quiet(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Options of work on a Ray cluster."""
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work on this Ray cluster, such as auto or ray://HOST:10001 (needs unclip[ray])",
    )
    parser.add_argument(
        "--ray-gpus",
        type=options.number,
        default=1.0,
        metavar="X",
        help="GPUs of each worker of the cluster; 0 computes on CPUs (default: 1)",
    )
    parser.add_argument(
        "--ray-workers",
        type=options.positive,
        metavar="N",
        help="workers of the cluster (default: as many as fit)",
    )


def run(arguments: argparse.Namespace) -> None:
    from unclip.batch.embed import embed_work
    from unclip.data.stream.faults import Faults
    from unclip.data.stream.open import open_stream

    if arguments.bad_share > 1:
        raise UsageError(f"--bad-share is {arguments.bad_share}; it is a share from 0 to 1")
    dataset = open_stream(
        arguments.data, split=arguments.split, faults=Faults(arguments.bad_share, option="--bad-share")
    )
    if dataset.faults.counts:
        console.tell(f"note: {dataset.faults.summary()}")
    work = embed_work(
        dataset,
        arguments.out or arguments.data,
        model=arguments.model,
        batch=arguments.batch,
        device=arguments.device,
        dtype=arguments.dtype or "float32",
        bad_share=arguments.bad_share,
    )
    do(work, arguments)


def do(work, arguments: argparse.Namespace) -> None:
    """Run a work where the options say, and print what came of it. Raises `UnitsFailed`."""
    from unclip.batch.work import UnitsFailed, run_here

    with console.Status(quiet=arguments.quiet) as status:

        def report(done: int, of: int) -> None:
            status(f"{done} of {of} units")

        if arguments.ray is None:
            outcome = run_here(work, report)
        else:
            from unclip.batch.on_ray import Cluster, run_on_ray

            cluster = Cluster(
                address=arguments.ray,
                gpus=arguments.ray_gpus,
                encoders=arguments.ray_workers or (1, 1_000_000),
            )
            outcome = run_on_ray(work, cluster, report)
    if arguments.json:
        console.result_json({"done": outcome.done, "before": outcome.before, "failed": outcome.failed})
    else:
        console.result(f"{outcome.done} units done, {outcome.before} were done before")
    if outcome.failed:
        name, reason = next(iter(outcome.failed.items()))
        raise UnitsFailed(
            f"{len(outcome.failed)} units failed, such as {name} ({reason}): the same command tries them again"
        )
