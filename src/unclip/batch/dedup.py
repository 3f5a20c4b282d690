"""Near-duplicates of a data set by the cosine of their embeddings, exactly within blocks (`unclip data dedup`).

A sample is a duplicate where its cosine with an earlier sample that is kept reaches the threshold. Data sets of more than
some million samples are cut into blocks by the nearest of `blocks` centres, and compared within these (SemDeDup, Abbas et al.
2023): equal rows are always in one block, and pairs across a border between two are not found. Memory is bounded by a tile and the
largest shard; rows and results are in scratch files.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from unclip.batch.embedded import Embedded
from unclip.data.permutation import PermutedOrder
from unclip.data.stream.selection import Decision, finished, write_selection
from unclip.disk import disk_full, is_full, reserve
from unclip.rng import derive

TILE = 4096
"""Rows that are compared with as many others at once."""
_TOLERANCE = 1e-5
"""Cosines of equal rows differ by rounding."""
_ROOM = "make room, or keep them on another disk (--scratch FOLDER)"
_ROWS_A_CENTRE = 64
_FOR_CENTRES = 65_536
_ITERATIONS = 10


@dataclass(frozen=True, kw_only=True)
class Dedup:
    """The rule. threshold: cosine in (-1, 1] from which on two samples are duplicates; seed: of the centres."""

    threshold: float
    blocks: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for numbers out of range."""
        if not -1 < self.threshold <= 1:
            raise ValueError(
                f"the threshold is {self.threshold}; it is a cosine above -1 and up to 1, such as 0.95"
            )
        if self.blocks < 1:
            raise ValueError(f"there must be at least 1 block, not {self.blocks}")


def dedup(
    embedded: Embedded,
    rule: Dedup,
    out: str | os.PathLike[str],
    *,
    scratch: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Write the selection without near-duplicates to `out`; its summary. One by the same rule that is there is kept."""
    described = {"kind": "dedup", **embedded.origin, **asdict(rule)}
    if (found := finished(out, described)) is not None:
        return found
    with tempfile.TemporaryDirectory(prefix="unclip-dedup-", dir=scratch) as name:
        folder, count = Path(name), len(embedded.dataset)
        kept, scores = (
            _reserved(folder / name, kind, count)
            for name, kind in (("kept", np.bool_), ("scores", np.float16))
        )
        try:
            files = _cut(embedded, rule, folder, torch.device(device))
        except OSError as error:
            if not is_full(error):
                raise
            size = count * (8 + 2 * embedded.sidecars.shape[0])
            raise disk_full(folder / "rows", size, what="the embeddings", remedy=_ROOM) from error
        for file, width in files.items():
            _compare(file, width, rule.threshold, kept, scores, torch.device(device))
        return write_selection(out, described, _decisions(embedded, kept, scores))


def _reserved(file: Path, kind: type[np.generic], count: int) -> np.ndarray:
    """A memory-mapped file of `count` zeros that has its room on the disk: without it, writing would end the process."""
    reserve(file, count * np.dtype(kind).itemsize, what="the scores of all samples", remedy=_ROOM)
    return np.memmap(file, dtype=kind, mode="r+", shape=(count,))


def _decisions(embedded: Embedded, kept: np.ndarray, scores: np.ndarray) -> Iterator[Decision]:
    for unit in embedded:
        here = slice(unit.start, unit.start + len(unit.hashes))
        yield Decision(unit.unit, unit.hashes, np.asarray(scores[here]), np.array(kept[here]))


def _type(width: int) -> np.dtype:
    return np.dtype([("number", np.int64), ("row", np.float16, (width,))])


def _cut(embedded: Embedded, rule: Dedup, folder: Path, device: torch.device) -> dict[Path, int]:
    """Write the usable rows of each block to a file, in the order of their samples; files and the rows' width."""
    centres = _centres(embedded, rule, device) if rule.blocks > 1 else None
    files: dict[Path, int] = {}
    for unit in embedded:
        places = np.flatnonzero(unit.usable)
        for start in range(0, len(places), TILE):
            some = places[start : start + TILE]
            records = np.empty(len(some), dtype=_type(unit.rows.shape[1]))
            records["number"], records["row"] = unit.start + some, unit.rows[some]
            blocks = np.zeros(len(some), dtype=np.int64)
            if centres is not None:
                blocks = (_directions(records["row"], device) @ centres.T).argmax(1).cpu().numpy()
            for block in np.unique(blocks):
                file = folder / f"{block}.rows"
                files[file] = unit.rows.shape[1]
                with file.open("ab") as opened:
                    opened.write(records[blocks == block].tobytes())
    return files


def _directions(rows: np.ndarray, device: torch.device) -> Float[Tensor, "n d"]:
    return normalize(torch.from_numpy(np.array(rows)).to(device).float(), dim=1)


def _centres(embedded: Embedded, rule: Dedup, device: torch.device) -> Float[Tensor, "k d"]:
    """Centres of blocks: spherical k-means on the rows of units in random order."""
    most = min(_FOR_CENTRES, max(_ROWS_A_CENTRE * rule.blocks, 4 * TILE))
    most = max(most, rule.blocks)
    parts: list[np.ndarray] = []
    units = embedded.dataset.units
    for number in PermutedOrder(len(units), derive(rule.seed, "dedup")).indices(0, len(units)):
        found = embedded.sidecars.unit(units[int(number)].name)
        if found is not None:
            parts.append(np.asarray(found[1][found[2]][:most]))
        if sum(map(len, parts)) >= most:
            break
    rows = _directions(np.concatenate(parts)[:most], device) if parts else torch.zeros(0, 1)
    if len(rows) < rule.blocks:
        raise ValueError(
            f"{len(rows)} samples with embeddings cannot be cut into {rule.blocks} blocks: give fewer"
        )
    first = PermutedOrder(len(rows), derive(rule.seed, "centres")).indices(0, rule.blocks)
    centres = rows[torch.from_numpy(first).to(device)]
    for _ in range(_ITERATIONS):
        nearest: Int64[Tensor, " n"] = (rows @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        empty = torch.bincount(nearest, minlength=rule.blocks) == 0
        centres = torch.where(empty[:, None], centres, normalize(sums, dim=1))
    return centres


def _compare(
    file: Path, width: int, threshold: float, kept: np.ndarray, scores: np.ndarray, device: torch.device
) -> None:
    """Decide on a block's samples: each tile against the kept rows of earlier tiles, then within itself."""
    records = np.memmap(file, dtype=_type(width), mode="r")
    chosen = np.zeros(len(records), dtype=np.bool_)
    for start in range(0, len(records), TILE):
        rows = _directions(records["row"][start : start + TILE], device)
        nearest = torch.full((len(rows),), -1.0, device=device)
        for before in range(0, start, TILE):
            places = before + np.flatnonzero(chosen[before : before + TILE])
            if len(places):
                earlier = _directions(records["row"][places], device)
                nearest = torch.maximum(nearest, (rows @ earlier.T).amax(1))
        found, best = _within((rows @ rows.T).cpu().numpy(), nearest.cpu().numpy(), threshold)
        stop = start + len(rows)
        chosen[start:stop] = found
        numbers = records["number"][start:stop]
        kept[numbers], scores[numbers] = found, best


def _within(
    cosines: Float[np.ndarray, "n n"], nearest: Float[np.ndarray, " n"], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a tile are kept, and the cosine of each with the most similar row that is kept before it."""
    best, found = nearest.copy(), np.zeros(len(nearest), dtype=np.bool_)
    for place in range(len(nearest)):
        if best[place] < threshold - _TOLERANCE:
            found[place] = True
            np.maximum(best[place + 1 :], cosines[place, place + 1 :], out=best[place + 1 :])
    return found, best
