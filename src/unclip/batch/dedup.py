"""Near-duplicates of a data set by the cosine of their embeddings, exactly within blocks (`unclip data dedup`).

A sample is a duplicate where its cosine with an earlier sample that is kept reaches the threshold. Data sets of more than
some million samples are cut into blocks by the nearest of `blocks` centres, and compared within these (SemDeDup, Abbas et al.
2023): equal rows are always in one block, and pairs across a border between two are not found. Memory is bounded by a tile and the
largest shard; rows and results are in scratch files.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int64
from torch import Tensor
from torch.nn.functional import normalize

from unclip.batch.embedded import Embedded
from unclip.batch.work import Encoder, Outcome, Part, UnitsFailed, Work, run_here
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
    run: Callable[[Work], Outcome] = run_here,
) -> dict[str, Any]:
    """Write the selection without near-duplicates to `out`; its summary. One by the same rule that is there is kept.

    run: where blocks are compared; other machines must see the scratch folder.
    """
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
        outcome = run(CompareWork(files, rule.threshold, str(device), kept, scores))
        if outcome.failed:
            raise UnitsFailed(
                "; ".join(f"{name}: {reason}" for name, reason in islice(outcome.failed.items(), 3))
            )
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


class CompareWork:
    """The comparisons within blocks. A unit is a block, in a file of the scratch folder; results go to the process that began it."""

    def __init__(
        self,
        files: Mapping[Path, int],
        threshold: float,
        device: str,
        kept: np.ndarray | None,
        scores: np.ndarray | None,
    ):
        self.files, self.widths = list(files), list(files.values())
        self.threshold, self.device, self._kept, self._scores = threshold, device, kept, scores

    @property
    def units(self) -> Sequence[str]:
        """Names of the blocks."""
        return [file.stem for file in self.files]

    def parts(self, unit: int) -> int:
        """1."""
        return 1

    def is_done(self, unit: int) -> bool:
        """False: results are those of one run."""
        return False

    def load(self, unit: int) -> Iterator[Part]:
        """The block's file."""
        if not self.files[unit].exists():
            raise ValueError(
                f"{self.files[unit]} is not on this machine: give a --scratch that all machines see"
            )
        yield Part(unit, 0, (self.files[unit], self.widths[unit]))

    def encoder(self) -> Encoder:
        """The comparison."""
        return _Comparison(self.threshold, self.device)

    def finish(self, unit: int, parts: Sequence[Any]) -> None:
        """Keep the decisions."""
        assert self._kept is not None
        assert self._scores is not None
        numbers = np.memmap(self.files[unit], dtype=_type(self.widths[unit]), mode="r")["number"]
        self._kept[numbers], self._scores[numbers] = parts[0]

    def __getstate__(self) -> dict[str, Any]:
        # As large as the data set, and of no use elsewhere.
        return {**self.__dict__, "_kept": None, "_scores": None}


class _Comparison:
    def __init__(self, threshold: float, device: str):
        self._threshold, self._device = threshold, torch.device(device)

    def __call__(self, part: Part) -> Part:
        """Which samples of a block are kept, and the cosine of each with the most similar one before it."""
        file, width = part.data
        try:
            found = _compare(file, width, self._threshold, self._device)
        except OSError as error:
            return Part(part.unit, -1, error=f"{error}: give a --scratch that all machines see")
        return Part(part.unit, part.number, found)


def _compare(
    file: Path, width: int, threshold: float, device: torch.device
) -> tuple[Bool[np.ndarray, " n"], Float16[np.ndarray, " n"]]:
    """Decide on a block's samples: each tile against the kept rows of earlier tiles, then within itself."""
    records = np.memmap(file, dtype=_type(width), mode="r")
    chosen, scores = np.zeros(len(records), dtype=np.bool_), np.zeros(len(records), dtype=np.float16)
    for start in range(0, len(records), TILE):
        rows = _directions(records["row"][start : start + TILE], device)
        nearest = torch.full((len(rows),), -1.0, device=device)
        for before in range(0, start, TILE):
            places = before + np.flatnonzero(chosen[before : before + TILE])
            if len(places):
                earlier = _directions(records["row"][places], device)
                nearest = torch.maximum(nearest, (rows @ earlier.T).amax(1))
        stop = start + len(rows)
        chosen[start:stop], scores[start:stop] = _within(
            (rows @ rows.T).cpu().numpy(), nearest.cpu().numpy(), threshold
        )
    return chosen, scores


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
