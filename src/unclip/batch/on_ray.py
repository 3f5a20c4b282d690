"""Batch work on a Ray cluster (extra `unclip[ray]`): Ray Data reads and decodes on CPUs and encodes on accelerators.

Parts of units flow through both stages at once, so that the memory in use does not grow with the data. Ray does the parts of a
machine that dies again elsewhere; a unit is written, whole, when all its parts have arrived.
"""

import logging
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unclip.batch.work import Collector, Encoder, Outcome, Part, Report, Work, load_safely, pending


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where to run, and how much each worker takes. address: of a Ray cluster, such as "auto" or ray://HOST:10001."""

    address: str
    encoders: int | tuple[int, int] = (1, 1_000_000)
    """Encoders at work, or the least and the most: as many as the accelerators allow."""
    gpus: float = 1.0
    """GPUs of an encoder; 0: it computes on CPUs."""
    cpus: float = 1.0
    """CPUs of an encoder and of a reader together; half of them each."""


def run_on_ray(work: Work, cluster: Cluster, report: Report = lambda done, of: None) -> Outcome:
    """Do all units that are not done on a cluster. Raises ImportError without Ray, ConnectionError without the cluster."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            "work on a cluster needs Ray: install it with `pip install 'unclip[ray]'`"
        ) from error
    outcome = Outcome()
    units = pending(work, outcome)
    if not units:
        return outcome
    if not ray.is_initialized():
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.WARNING)
    collector = Collector(work, outcome, len(units), report)
    most = cluster.encoders if isinstance(cluster.encoders, int) else cluster.encoders[1]
    least = cluster.encoders if isinstance(cluster.encoders, int) else cluster.encoders[0]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A machine may die at any moment; nothing is lost by trying again.
    context.max_errored_blocks = 0
    kept = ray.put(work)
    # Encoders that stay must leave room to load: on the node that is left, two of them could take both cores for ever.
    half = cluster.cpus / 2
    data = (
        ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=len(units))
        .map_batches(_Load(kept), batch_size=1, num_cpus=half, max_retries=-1)
        .map_batches(
            _Encode,
            fn_constructor_args=(kept,),
            batch_size=1,
            num_cpus=half,
            num_gpus=cluster.gpus,
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=min(most, max(least, len(units)))),
        )
    )
    for batch in data.iter_batches(batch_size=1, prefetch_batches=0):
        collector.add(_unpacked(batch))
    return outcome


class _Load:
    """The stage on CPUs: from the number of a unit to its parts, one after the other."""

    def __init__(self, kept: Any):
        self._kept = kept

    def __call__(self, batch: Any) -> Iterator[dict[str, Any]]:
        import ray

        work: Any = ray.get(self._kept)
        for part in load_safely(work, int(batch["unit"][0])):
            yield _packed(part)


class _Encode:
    """The stage on accelerators."""

    def __init__(self, kept: Any):
        import ray

        work: Any = ray.get(kept)
        self._encode: Encoder = work.encoder()

    def __call__(self, batch: Any) -> dict[str, Any]:
        part = _unpacked(batch)
        return _packed(part if part.error is not None else self._encode(part))


def _packed(part: Part) -> dict[str, Any]:
    return {"part": [pickle.dumps(part, protocol=5)]}


def _unpacked(batch: Any) -> Part:
    return pickle.loads(batch["part"][0])
