"""Sidecar files: a row for each sample of a unit, such as its embedding or its latent, joined to the samples by key.

`SHARD.KIND-MODEL.safetensors` holds `keys` (a 64-bit hash of each sample's key), `rows` (float16, n rows of any shape) and
`ok` (which rows are good); its metadata (`sidecar`, JSON) name the kind, the model's digest and how pictures were prepared.
"""

import hashlib
import json
import math
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped
from safetensors.numpy import save

from unclip.config import shown
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.faults import MISSING_ROW, Faults
from unclip.data.stream.store import LocalStore, Store, StoreFailure, Vanished, open_store

FORMAT = "1"
IMAGE = "image"
"""Kind of CLIP image embeddings."""
LATENT = "latent"
"""Kind of latents, followed by the pictures' size: float16 (2, c, h, w), the mean and the log variance."""
ENDING = ".safetensors"
_SHOWN = 12
_MOST_OPEN = 128
_TYPES: dict[str, type[np.generic]] = {"keys": np.uint64, "rows": np.float16, "ok": np.bool_}
_NAMES = {np.float16: "F16", np.uint64: "U64", np.bool_: "BOOL"}
_MOST_HEADER = 1 << 20
_CHECKED = 4096


class SidecarError(ValueError):
    """A sidecar that is damaged, or of another model; the message names the file and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What rows are: their kind, the digest of the model that made them, and how pictures were prepared for it."""

    kind: str
    model: str
    preprocessing: str

    def name(self, unit: str) -> str:
        """The file of a unit's rows."""
        return f"{unit}.{self.kind}-{self.model[:_SHOWN]}{ENDING}"


def hash_of(key: str) -> int:
    """64 bits of a key, by which rows are found."""
    data = key.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def encode_sidecar(
    origin: Origin,
    unit: str,
    keys: Sequence[str],
    rows: Shaped[np.ndarray, "n ..."],
    ok: Bool[np.ndarray, " n"],
    *,
    state: str = "",
) -> bytes:
    """The file of a unit's rows; those that are not `ok` are zeros. state: of the unit that they were made of.

    Raises `SidecarError` for keys that come twice.
    """
    hashes = np.array([hash_of(key) for key in keys], dtype=np.uint64)
    if len(np.unique(hashes)) != len(keys):
        raise SidecarError(
            f"{unit} holds a key twice, so its rows cannot be joined: give each sample a name of its own"
        )
    kept = np.ascontiguousarray(rows.astype(np.float16))
    kept[~ok] = 0
    return pack(origin, unit, hashes, kept, ok, state)


def pack(
    origin: Origin,
    unit: str,
    hashes: Shaped[np.ndarray, " n"],
    rows: Shaped[np.ndarray, "n ..."],
    ok: Bool[np.ndarray, " n"],
    state: str = "",
) -> bytes:
    """The file of rows by the hashes of their keys; rows are float16."""
    metadata = {"format": FORMAT, "unit": unit, "samples": str(len(hashes)), "state": state}
    metadata |= asdict(origin)
    # One entry, as several are stored in no fixed order.
    return save({"keys": hashes, "rows": rows, "ok": ok}, {"sidecar": json.dumps(metadata, sort_keys=True)})


def only_model(place: str | os.PathLike[str], kind: str, chosen: str | None = None) -> str:
    """The digest of the model whose rows are at a place; of several, the one that begins with `chosen`.

    Raises `SidecarError` where there are no rows, or of several models.
    """
    store, found = open_store(place), {}
    for one in store.files():
        stem, _, model = one.name.removesuffix(ENDING).rpartition(f".{kind}-")
        if one.name.endswith(ENDING) and stem and model.startswith((chosen or "")[:_SHOWN]):
            found.setdefault(model, one.name)
    if len(found) != 1:
        several = f"rows of the models {', '.join(sorted(found))}: name one of them by its first digits"
        nothing = (
            f"no {kind} rows{f' of the model {chosen}' if chosen else ''}: make them first (`unclip embed`)"
        )
        raise SidecarError(f"{store.url} holds {several if found else nothing}")
    (name,) = found.values()
    return _parse(store.read(name, [(0, 1 << 16)])[0], name).metadata["model"]


class _Header(NamedTuple):
    metadata: dict[str, str]
    tensors: dict[str, tuple[type, tuple[int, ...], int]]
    """Name -> type, shape and offset in the file."""
    size: int


def _parse(head: bytes, name: str) -> _Header:
    try:
        length = int.from_bytes(head[:8], "little")
        found = json.loads(head[8 : 8 + length])
        metadata, start = json.loads(found.pop("__metadata__")["sidecar"]), 8 + length
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']}, this version reads {FORMAT}")
        tensors = {key: _tensor(key, found[key], start) for key in _TYPES}
        counts = {shape[0] for _, shape, _ in tensors.values()}
        if len(counts) != 1 or any(len(tensors[key][1]) != 1 for key in ("keys", "ok")):
            raise ValueError("keys, rows and ok are not of the same samples")
        size = start + max(one["data_offsets"][1] for one in found.values())
        return _Header({str(name): str(value) for name, value in metadata.items()}, tensors, size)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise SidecarError(
            f"{name} is no sidecar, or damaged ({error}): remove it and make it again"
        ) from error


def _tensor(key: str, entry: dict[str, Any], start: int) -> tuple[type, tuple[int, ...], int]:
    """Type, shape and offset of a tensor. Raises ValueError, among others, where they contradict each other."""
    kind, shape, (first, last) = _TYPES[key], tuple(entry["shape"]), entry["data_offsets"]
    whole = all(type(one) is int and one >= 0 for one in (*shape, first, last))
    if entry["dtype"] != _NAMES[kind] or not shape or not whole:
        raise ValueError(f"{key} is {entry['dtype']} of the shape {shown(entry['shape'])}")
    if last - first != math.prod(shape) * np.dtype(kind).itemsize:
        raise ValueError(f"{key} has {last - first} bytes, and another shape")
    return kind, shape, start + first


def is_whole(store: Store, name: str, origin: Origin, samples: int, *, state: str = "") -> bool:
    """Whether a sidecar is there, of this origin, for so many samples, and of the length that its header says.

    state: of the unit now; a sidecar that was made of the unit in another one is of other pictures.
    """
    try:
        header = _parse(store.read(name, [(0, 1 << 16)])[0], name)
        same = all(header.metadata[field] == value for field, value in asdict(origin).items())
        if not same or int(header.metadata["samples"]) != samples or header.metadata["state"] != state:
            return False
        return len(store.read(name, [(header.size - 1, 2)])[0]) == 1
    except (Vanished, SidecarError, KeyError):
        return False


class _Opened(NamedTuple):
    order: Int[np.ndarray, " n"]
    hashes: np.ndarray
    rows: np.ndarray
    ok: np.ndarray


class Sidecars:
    """Rows of one kind by unit and key. Files are memory-mapped; of an object store, they go through `cache`.

    Raises `SidecarError` where the folder has rows of that kind, but of other models only.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        kind: str,
        model: str,
        cache: DiskCache,
        faults: Faults | None = None,
    ):
        self.store, self.kind, self.model, self.cache = open_store(place), kind, model, cache
        self.faults = faults if faults is not None else Faults(1.0)
        models: dict[str, int] = {}
        self._stamps: dict[str, str] = {}
        for one in self.store.files():
            stem, _, found = one.name.removesuffix(ENDING).rpartition(f".{kind}-")
            if one.name.endswith(ENDING) and stem:
                models[found] = models.get(found, 0) + 1
                self._stamps[one.name] = one.stamp
        if models and model[:_SHOWN] not in models:
            raise SidecarError(
                f"{self.store.url} holds {kind} rows of the model {', '.join(sorted(models))}, and not of {model[:_SHOWN]}: "
                "make them with this model, or name the one that made them"
            )
        self.files = models.get(model[:_SHOWN], 0)
        self._opened: OrderedDict[str, _Opened | None] = OrderedDict()

    def rows(
        self, units: Sequence[str], keys: Sequence[str]
    ) -> tuple[Shaped[np.ndarray, "b ..."], Bool[np.ndarray, " b"]]:
        """The row of each key in its unit, float16, and which there are; a row that is not there is zero and counted.

        Raises `SidecarError` where there is no row at all to know the shape by.
        """
        found: list[np.ndarray | None] = []
        for unit, key in zip(units, keys):
            row = self._row(unit, key)
            if row is None:
                self.faults.record(MISSING_ROW, key, f"no {self.kind} of the model {self.model[:_SHOWN]}")
            found.append(row)
        ok = np.array([row is not None for row in found])
        shape = next((row.shape for row in found if row is not None), self.shape)
        blank = np.zeros(shape, dtype=np.float16)
        return np.stack([blank if row is None else row for row in found]), ok

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a row, by any file. Raises `SidecarError` where there is none."""
        for one in self.store.files():
            if one.name.endswith(f".{self.kind}-{self.model[:_SHOWN]}{ENDING}"):
                head = self.store.read(one.name, [(0, 1 << 16)])[0]
                return _parse(head, one.name).tensors["rows"][1][1:]
        raise SidecarError(
            f"{self.store.url} holds no {self.kind} rows of the model {self.model[:_SHOWN]}: make them first"
        )

    def unit(self, unit: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Hashes of keys, rows and `ok` of a unit in the order of the file; None where there is none."""
        found = self._open(unit)
        if found is None:
            return None
        hashes = np.empty_like(found.hashes)
        hashes[found.order] = found.hashes
        for start in range(0, len(found.rows), _CHECKED):
            part = slice(start, start + _CHECKED)
            finite = np.isfinite(found.rows[part]).reshape(len(found.rows[part]), -1).all(1)
            if odd := np.flatnonzero(found.ok[part] & ~finite).tolist():
                raise self._not_finite(unit, f"number {start + odd[0]}")
        return hashes, found.rows, found.ok

    def _row(self, unit: str, key: str) -> np.ndarray | None:
        found = self._open(unit)
        if found is None:
            return None
        wanted = np.uint64(hash_of(key))
        place = int(np.searchsorted(found.hashes, wanted))
        if place == len(found.hashes) or found.hashes[place] != wanted:
            return None
        number = int(found.order[place])
        if not found.ok[number]:
            return None
        row = np.asarray(found.rows[number])
        if not np.isfinite(row).all():
            raise self._not_finite(unit, f"of {key}")
        return row

    def _not_finite(self, unit: str, which: str) -> SidecarError:
        name = Origin(kind=self.kind, model=self.model, preprocessing="").name(unit)
        return SidecarError(
            f"{self.store.url}/{name} is damaged: the row {which} holds numbers that are not finite; remove it and make it "
            "again"
        )

    def _open(self, unit: str) -> _Opened | None:
        if unit not in self._opened:
            while len(self._opened) >= _MOST_OPEN:
                self._opened.popitem(last=False)
            self._opened[unit] = self._read(unit)
        self._opened.move_to_end(unit)
        return self._opened[unit]

    def _read(self, unit: str) -> _Opened | None:
        name = Origin(kind=self.kind, model=self.model, preprocessing="").name(unit)
        try:
            if isinstance(self.store, LocalStore):
                path = Path(self.store.url) / name
                if not path.exists():
                    return None
            else:
                # One that was written again is another file to the cache.
                known = f"{self.store.url}\n{name}\n{self._stamps.get(name)}"
                path = self.cache.path(known, lambda: self.store.get(name))
        except Vanished:
            return None
        except StoreFailure:
            raise
        with path.open("rb") as file:
            head = file.read(8)
            # What is no sidecar begins with any number.
            length = min(int.from_bytes(head, "little"), _MOST_HEADER)
            header = _parse(head + file.read(length), f"{self.store.url}/{name}")
        if header.metadata["model"] != self.model:
            raise SidecarError(
                f"{name} holds rows of the model {header.metadata['model']}, not of {self.model}: make them with this model"
            )
        if path.stat().st_size != header.size:
            raise SidecarError(f"{self.store.url}/{name} is cut off: remove it and make it again")
        hashes, rows, ok = (
            np.memmap(path, dtype=kind, mode="r", offset=offset, shape=shape)
            if 0 not in shape
            else np.zeros(shape, kind)
            for kind, shape, offset in (header.tensors[one] for one in ("keys", "rows", "ok"))
        )
        order = np.argsort(hashes, kind="stable")
        return _Opened(order, np.asarray(hashes)[order], rows, np.asarray(ok))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": OrderedDict()}
