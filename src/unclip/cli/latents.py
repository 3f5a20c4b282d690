"""`unclip latents`: latents of a data set by an autoencoder, shard by shard, in this process or on a Ray cluster."""

import argparse

from unclip.cli import cluster, embed, options
from unclip.cli.console import UsageError


def add(verbs) -> None:
    parser = options.verb(
        verbs,
        "latents",
        "encode the pictures of a data set with an autoencoder; the same command goes on where it stopped",
    )
    parser.add_argument(
        "--size",
        type=options.positive,
        required=True,
        metavar="N",
        help="side in pixels of the squares that are encoded, as data.size in training",
    )
    embed.add_shared(parser, batch=16, what="encoded")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.batch.latents import latents_work

    dataset, out = embed.opened(arguments)
    try:
        work = latents_work(
            dataset,
            out,
            model=arguments.model,
            size=arguments.size,
            batch=arguments.batch,
            device=arguments.device,
            dtype=arguments.dtype or "float32",
            bad_share=arguments.bad_share,
        )
    except ValueError as error:
        if str(error).startswith("the size"):
            raise UsageError(f"--size {arguments.size}: {error}") from None
        raise
    cluster.do(work, arguments)
