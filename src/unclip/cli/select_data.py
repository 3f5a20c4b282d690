"""`unclip data dedup` and `unclip data filter`: which samples of a data set are used, by their embeddings."""

import argparse
import os
import sys
from typing import Any

from unclip.cli import cluster, console, options
from unclip.cli.console import UsageError


def add(sets: Any) -> None:
    """Add both to the verbs of `unclip data`."""
    dedup = options.verb(
        sets,
        "dedup",
        "leave near-duplicates out by the cosine of their embeddings; writes a selection, no pictures",
    )
    _add_shared(dedup)
    dedup.add_argument(
        "--threshold",
        type=options.real,
        required=True,
        metavar="X",
        help="cosine from which on two pictures are duplicates, such as 0.95",
    )
    dedup.add_argument(
        "--blocks",
        type=options.positive,
        default=1,
        metavar="N",
        help="compare within N clusters only, for more than some million pictures (default: 1, all with all)",
    )
    dedup.add_argument(
        "--seed", type=options.seed, default=0, metavar="N", help="seed of the clusters (default: 0)"
    )
    dedup.add_argument(
        "--scratch",
        metavar="FOLDER",
        help="where the embeddings are sorted; with --ray, one that all machines see (default: the system's)",
    )
    dedup.set_defaults(run=run_dedup)

    chosen = options.verb(
        sets, "filter", "keep pictures by a score of their embeddings; writes a selection, no pictures"
    )
    _add_shared(chosen)
    chosen.add_argument(
        "--by",
        required=True,
        metavar="HEAD",
        help="FILE.safetensors with a linear layer or an MLP, or MODULE:FUNCTION of float32 rows (n, d)",
    )
    chosen.add_argument("--at-least", type=options.real, metavar="X", help="keep scores from X on")
    chosen.add_argument("--at-most", type=options.real, metavar="X", help="keep scores up to X")
    chosen.add_argument(
        "--activation", choices=("none", "relu", "gelu"), help="what is between the layers of an MLP"
    )
    chosen.add_argument(
        "--output-index", type=options.whole, metavar="N", help="which of the scores of a head, from 0"
    )
    chosen.set_defaults(run=run_filter)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DATA", help="folder or URL (s3://...) that `unclip embed` has embedded"
    )
    parser.add_argument(
        "-o", "--out", required=True, metavar="FOLDER", help="where the selection goes, a folder or a URL"
    )
    parser.add_argument(
        "--embeddings", metavar="FOLDER", help="where the sidecar files are (default: beside the data)"
    )
    parser.add_argument(
        "--of",
        metavar="DIGEST",
        help="first digits of the CLIP's digest, where there are embeddings of several",
    )
    parser.add_argument("--selection", metavar="FOLDER", help="an earlier selection, of which this is a part")
    parser.add_argument("--split", metavar="NAME", help="only the shards named NAME-SPLIT-NUMBER")
    parser.add_argument(
        "--bad-share",
        type=options.number,
        default=0.01,
        metavar="X",
        help="share of samples without embedding from which on it is an error (default: 0.01)",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: cpu)")
    options.add_cluster(parser)
    options.add_json(parser)


def run_dedup(arguments: argparse.Namespace) -> None:
    from unclip.batch.dedup import Dedup, dedup

    rule = _checked(Dedup, threshold=arguments.threshold, blocks=arguments.blocks, seed=arguments.seed)
    embedded = _embedded(arguments)
    if arguments.ray is not None and arguments.scratch is None:
        raise UsageError("on a cluster, give a folder that all machines see as --scratch")
    made = dedup(
        embedded,
        rule,
        arguments.out,
        scratch=arguments.scratch,
        device=arguments.device or "cpu",
        run=_runner(arguments),
    )
    _tell(made, embedded, arguments)


def run_filter(arguments: argparse.Namespace) -> None:
    from unclip.batch.filter import Limits, filter_by
    from unclip.batch.heads import open_head

    # Functions are looked for where the command is run, too.
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    limits = _checked(Limits, at_least=arguments.at_least, at_most=arguments.at_most)
    head = _checked(
        open_head,
        arguments.by,
        activation=arguments.activation,
        output=arguments.output_index,
        device=arguments.device or "cpu",
    )
    embedded = _embedded(arguments)
    _tell(filter_by(embedded, head, limits, arguments.out, _runner(arguments)), embedded, arguments)


def _runner(arguments: argparse.Namespace) -> Any:
    return lambda work: cluster.run(work, arguments, lambda done, of: None)


def _checked(make: Any, *given: Any, **settings: Any) -> Any:
    try:
        return make(*given, **settings)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _embedded(arguments: argparse.Namespace) -> Any:
    from unclip.batch.embedded import Embedded
    from unclip.data.stream.faults import Faults
    from unclip.data.stream.open import beside, default_cache, open_stream
    from unclip.data.stream.selection import Selection

    if arguments.bad_share > 1:
        raise UsageError(f"--bad-share is {arguments.bad_share}; it is a share from 0 to 1")
    cache = default_cache()
    faults = Faults(arguments.bad_share, option="--bad-share")
    dataset = open_stream(arguments.data, split=arguments.split, cache=cache, faults=faults)
    return Embedded(
        dataset,
        arguments.embeddings or beside(arguments.data),
        cache,
        model=arguments.of,
        selection=None if arguments.selection is None else Selection(arguments.selection, cache),
        faults=Faults(arguments.bad_share, option="--bad-share"),
    )


def _tell(made: dict[str, Any], embedded: Any, arguments: argparse.Namespace) -> None:
    if embedded.faults.counts:
        console.tell(f"note: {embedded.faults.summary()}")
    kept = sum(made["kept"].values())
    if arguments.json:
        console.result_json({"samples": made["samples"], "kept": kept, "digest": made["digest"]})
    else:
        console.result(f"{kept} of {made['samples']} samples kept")
