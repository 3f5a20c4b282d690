"""`unclip embed`: CLIP image embeddings of a data set, shard by shard, in this process or on a Ray cluster."""

import argparse
from typing import TYPE_CHECKING

from unclip.cli import cluster, console, options
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.data.stream.dataset import StreamDataset


def add(verbs) -> None:
    parser = options.verb(
        verbs,
        "embed",
        "embed the pictures of a data set with CLIP; the same command goes on where it stopped",
    )
    add_shared(parser, batch=64, what="embedded")
    parser.set_defaults(run=run)


def add_shared(parser: argparse.ArgumentParser, *, batch: int, what: str) -> None:
    """Options of verbs that compute something of each picture."""
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
        default=batch,
        metavar="N",
        help=f"pictures that are {what} together (default: {batch})",
    )
    parser.add_argument(
        "--bad-share",
        type=options.number,
        default=0.01,
        metavar="X",
        help="share of bad pictures from which on a shard fails (default: 0.01)",
    )
    options.add_model(parser)
    options.add_device(parser, dtype="float32")
    options.add_cluster(parser)
    options.add_quiet(parser)
    options.add_json(parser)


def opened(arguments: argparse.Namespace) -> "tuple[StreamDataset, str]":
    """The data set, and where its sidecar files go."""
    from unclip.data.stream.faults import Faults
    from unclip.data.stream.open import beside, open_stream

    if arguments.part or arguments.adapter:
        raise UsageError(
            "this verb uses one part of one model: name it with --model, and leave --part and --adapter out"
        )
    if arguments.bad_share > 1:
        raise UsageError(f"--bad-share is {arguments.bad_share}; it is a share from 0 to 1")
    dataset = open_stream(
        arguments.data, split=arguments.split, faults=Faults(arguments.bad_share, option="--bad-share")
    )
    if dataset.faults.counts:
        console.tell(f"note: {dataset.faults.summary()}")
    return dataset, arguments.out or beside(arguments.data)


def run(arguments: argparse.Namespace) -> None:
    from unclip.batch.embed import embed_work

    dataset, out = opened(arguments)
    if not len(dataset):
        raise UsageError(
            f"{arguments.data} holds no pictures with captions, and no shards: there is nothing to embed"
        )
    work = embed_work(
        dataset,
        out,
        model=arguments.model,
        batch=arguments.batch,
        device=arguments.device,
        dtype=arguments.dtype or "float32",
        bad_share=arguments.bad_share,
    )
    cluster.do(work, arguments)
