"""`unclip embed`: CLIP image embeddings of a data set, shard by shard, in this process or on a Ray cluster."""

import argparse

from unclip.cli import cluster, console, options
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
    options.add_cluster(parser)
    options.add_quiet(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.batch.embed import embed_work
    from unclip.data.stream.faults import Faults
    from unclip.data.stream.open import beside, open_stream

    if arguments.bad_share > 1:
        raise UsageError(f"--bad-share is {arguments.bad_share}; it is a share from 0 to 1")
    dataset = open_stream(
        arguments.data, split=arguments.split, faults=Faults(arguments.bad_share, option="--bad-share")
    )
    if dataset.faults.counts:
        console.tell(f"note: {dataset.faults.summary()}")
    work = embed_work(
        dataset,
        arguments.out or beside(arguments.data),
        model=arguments.model,
        batch=arguments.batch,
        device=arguments.device,
        dtype=arguments.dtype or "float32",
        bad_share=arguments.bad_share,
    )
    cluster.do(work, arguments)
