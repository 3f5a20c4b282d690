"""Build the artwork data set: drawings of five emoji styles, rasterised into tar shards with captions.

`build` is deterministic: the same packages, options and library versions give the same bytes, whatever the number of
workers. See `plan` for what is made and what is held out.
"""

import json
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from unclip.data.shards import ShardWriter
from unclip.datasets.artwork import canvas, drawings
from unclip.datasets.artwork.canvas import Placement
from unclip.datasets.artwork.colours import Palette, map_colours, measure, recolouring
from unclip.datasets.artwork.drawings import Drawing
from unclip.datasets.artwork.plan import SPLITS, Job, Layer, Plan, digest
from unclip.datasets.artwork.wordings import free
from unclip.images import write_atomically

logger = logging.getLogger(__name__)

#: Side of the small pictures on which colours are measured.
MEASURED = 64


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build made. counts: split -> pictures; kinds: kind -> pictures; dropped: recolourings that failed the check."""

    folder: Path
    counts: dict[str, int]
    kinds: dict[str, int]
    drawings: int
    dropped: int


def build(
    out: str | Path,
    *,
    packages: str | Path = "artwork/node_modules",
    size: int = 256,
    limit: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    recolours: int = 4,
    pairs: int = 14_000,
    held_out_pairs: int = 2_000,
    augmented: int = 5_000,
    per_shard: int = 1_000,
    lightest: float = 0.0,
    wordings: int = 0,
    measured: str | Path | None = None,
) -> Built:
    """Build the set into the folder `out` (created; must hold no other shards).

    packages: the node_modules folder that holds the icon sets. size: side of the pictures in pixels. limit: at most so
    many plain drawings, spread over styles, and proportionally fewer of the rest (for tests). workers: processes
    (default: the cores of this machine). recolours: per drawing that has one dominant colour. held_out_pairs: pairs of
    held-out combinations beyond those among `pairs`, for the evaluation's distances. lightest: drawings of less weight are
    left out. wordings: further captions of each picture in free wordings (`wordings.free`). measured: a file that keeps
    the measured colours and the recolourings that passed, read where it exists and written otherwise; it fits every
    build of the same packages, `recolours` and `seed`.
    Raises FileNotFoundError when packages are missing, FileExistsError when `out` holds shards already.
    """
    folder = Path(out)
    everything = drawings.load_drawings(Path(packages))
    if any(folder.glob("artwork-*.tar")):
        raise FileExistsError(f"{folder} holds shards already: name an empty folder, or delete them first")
    folder.mkdir(parents=True, exist_ok=True)
    available = len(everything)
    if limit is not None and limit < available:
        everything.sort(key=lambda d: (digest("limit", d.concept.id, d.tones), d.style))
        everything = sorted(everything[:limit], key=lambda d: (list(drawings.STYLES).index(d.style), d.name))
    part = len(everything) / max(available, 1)
    pairs, held_out_pairs, augmented = (round(count * part) for count in (pairs, held_out_pairs, augmented))

    everything = [drawing for drawing in everything if drawing.weight >= lightest]
    with _mapper(workers) as parallel:
        known = None if measured is None or not Path(measured).exists() else _read_measured(Path(measured))
        palettes, checked, tried = known or _measured(everything, seed, recolours, parallel)
        if measured is not None and known is None:
            _write_measured(Path(measured), palettes, checked, tried)
        passed = sum(len(colours) for colours in checked.values())
        logger.info("recoloured %d of %d trials on %d drawings", passed, tried, len(checked))
        plan = Plan(everything, palettes, seed)
        jobs = [
            *plan.plain(),
            *plan.recolours(checked, recolours),
            *plan.pairs(pairs, checked, held_out_pairs),
            *plan.augmented(augmented, checked),
        ]
        for job in jobs if wordings else ():
            job.meta["captions"] = list(dict.fromkeys([*job.meta["captions"], *free(job, wordings)]))
        # One fixed shuffle, so that reading the shards in sequence meets every kind and style.
        jobs.sort(key=lambda job: digest("order", seed, job.key))
        counts, kinds = _write(folder, jobs, size, per_shard, parallel)
    record = {
        "format": 1,
        "packages": drawings.versions(Path(packages)),
        "options": {"size": size, "limit": limit, "seed": seed, "recolours": recolours, "pairs": pairs,
                    "held_out_pairs": held_out_pairs, "augmented": augmented},
        "counts": counts,
        "kinds": kinds,
    }  # fmt: skip
    write_atomically(folder / "artwork.json", json.dumps(record, indent=2).encode() + b"\n", force=True)
    return Built(
        folder=folder, counts=counts, kinds=kinds, drawings=len(plan.drawings), dropped=tried - passed
    )


Measured = tuple[dict[str, Palette], dict[str, list[str]], int]
"""Drawing key -> its colours; drawing key -> the colours it can be given; the number that was tried."""


def _measured(everything: list[Drawing], seed: int, recolours: int, parallel: "Mapper") -> Measured:
    palettes: dict[str, Palette] = {}
    for drawing, palette in zip(everything, parallel(_measure, everything), strict=True):
        if palette is not None:
            palettes[drawing.key] = palette
    logger.info("measured %d drawings", len(palettes))
    plan = Plan(everything, palettes, seed)
    trials = [
        Layer(drawing=drawing, colour=colour, palette=palettes[drawing.key])
        for drawing in plan.drawings
        for colour in plan.colours_to_try(drawing, recolours + 2)
    ]
    checked: dict[str, list[str]] = {}
    for layer, good in zip(trials, parallel(_check, trials), strict=True):
        if good and layer.colour is not None:
            checked.setdefault(layer.drawing.key, []).append(layer.colour)
    return palettes, checked, len(trials)


def _read_measured(file: Path) -> Measured:
    found = json.loads(file.read_text(encoding="utf-8"))
    palettes = {
        key: Palette(**{**values, "box": tuple(values["box"])}) for key, values in found["palettes"].items()
    }
    return palettes, found["checked"], found["tried"]


def _write_measured(
    file: Path, palettes: dict[str, Palette], checked: dict[str, list[str]], tried: int
) -> None:
    kept = {key: asdict(palette) for key, palette in palettes.items()}
    text = json.dumps({"palettes": kept, "checked": checked, "tried": tried})
    write_atomically(file, text.encode(), force=True)


def _write(
    folder: Path,
    jobs: list[Job],
    size: int,
    per_shard: int,
    parallel: "Mapper",
) -> tuple[dict[str, int], dict[str, int]]:
    kinds: Counter[str] = Counter()
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(ShardWriter(folder, f"artwork-{split}", per_shard)) for split in SPLITS
        }
        work = [(job.layers, size) for job in jobs]
        for number, (job, png) in enumerate(zip(jobs, parallel(_render, work), strict=True), start=1):
            text = json.dumps(job.meta, ensure_ascii=False, separators=(",", ":"))
            writers[job.split].add({"png": png, "json": text.encode()})
            kinds[job.meta["kind"]] += 1
            if number % 1000 == 0:
                logger.info("%d of %d pictures", number, len(jobs))
    return {split: writer.count for split, writer in writers.items()}, dict(sorted(kinds.items()))


Mapper = Callable[[Callable, list], Iterator]


@contextmanager
def _mapper(workers: int | None) -> Iterator["Mapper"]:
    """An order-keeping map over processes, or in this one for a single worker."""
    count = workers or os.cpu_count() or 1
    if count == 1:
        yield lambda function, items: map(function, items)
        return
    # Started afresh, not forked: the caller may hold threads (of torch, for one) that do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        yield lambda function, items: pool.imap(function, items, chunksize=16)


def _body(layer: Layer) -> str:
    if layer.colour is None or layer.palette is None:
        return layer.drawing.body
    return map_colours(layer.drawing.body, recolouring(layer.palette, layer.colour))


def _measure(drawing: Drawing) -> Palette | None:
    return measure(canvas.pixels(canvas.document([(drawing, drawing.body, Placement())]), MEASURED))


def _check(layer: Layer) -> bool:
    """Whether the recoloured drawing really looks like its new colour."""
    seen = measure(canvas.pixels(canvas.document([(layer.drawing, _body(layer), Placement())]), MEASURED))
    return seen is not None and seen.name == layer.colour


def _render(work: tuple[tuple[Layer, ...], int]) -> bytes:
    layers, size = work
    svg = canvas.document([(layer.drawing, _body(layer), layer.place) for layer in layers])
    return canvas.encode_png(canvas.rasterise(svg, size))
