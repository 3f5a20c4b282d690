"""CLIP image embeddings of a data set, as sidecar files beside its shards or in a folder of their own."""

import logging
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from unclip.batch.work import Encoder, Part
from unclip.data.stream.dataset import Fault, StreamDataset, Unit
from unclip.data.stream.faults import CORRUPT, Faults
from unclip.data.stream.sidecar import IMAGE, Origin, encode_sidecar, is_whole
from unclip.data.stream.store import open_store
from unclip.images import flatten, open_picture, resize
from unclip.images.files import Filter, middle_square

logger = logging.getLogger(__name__)

_NAMED = 5


class EmbedWork:
    """The work of `unclip embed`. A unit is a shard; its parts are `batch` samples each, which a batch of the network is.

    model: as `unclip.load` takes it; digest, size, whole and interpolation: of its CLIP (`embed_work` asks it).
    Pictures that cannot be decoded have no row; their share in a unit is bounded by `bad_share`.
    """

    def __init__(
        self,
        dataset: StreamDataset,
        out: str | os.PathLike[str],
        *,
        model: str,
        digest: str,
        size: int,
        whole: bool,
        interpolation: Filter,
        batch: int = 64,
        device: str | None = None,
        dtype: str = "float32",
        bad_share: float = 0.01,
    ):
        self.dataset, self.out, self.model, self.batch = dataset, os.fspath(out), model, batch
        self.size, self.whole = size, whole
        self.interpolation: Filter = interpolation
        self.device, self.dtype, self.bad_share = device, dtype, bad_share
        way = "squash" if whole else "middle square"
        self.origin = Origin(
            kind=IMAGE, model=digest, preprocessing=f"{way}, {size} px, {interpolation}, on white, {dtype}"
        )

    made = "embedding"
    """What a row is, in words."""

    @property
    def units(self) -> Sequence[str]:
        """Names of the shards."""
        return _Names(self.dataset.units)

    @cached_property
    def _store(self) -> Any:
        return open_store(self.out)

    def parts(self, unit: int) -> int:
        """Batches of a shard."""
        return max(1, -(-self.dataset.units[unit].size // self.batch))

    def is_done(self, unit: int) -> bool:
        """Whether the sidecar is whole, of this model, and made of the samples as they are."""
        name, _, size = self.dataset.units[unit]
        state = self.dataset.state(unit)
        return is_whole(self._store, self.origin.name(name), self.origin, size, state=state)

    def load(self, unit: int) -> Iterator[Part]:
        """Decoded squares of a shard; bounded by the share of bad ones."""
        _, start, size = self.dataset.units[unit]
        faults = Faults(self.bad_share, option="--bad-share")
        for number in range(self.parts(unit)):
            first = start + number * self.batch
            records = self.dataset.read(range(first, min(first + self.batch, start + size)))
            pixels = np.full((len(records), self.size, self.size, 3), 255, dtype=np.uint8)
            keys, ok, reasons = [], np.ones(len(records), dtype=bool), {}
            for row, record in enumerate(records):
                keys.append(record.key)
                try:
                    if isinstance(record, Fault):
                        raise record
                    pixels[row] = self._square(record.picture)
                except ValueError as error:
                    ok[row] = False
                    kind, reason = getattr(error, "kind", CORRUPT), getattr(error, "reason", str(error))
                    faults.record(kind, record.key, reason)
                    reasons[record.key] = reason
            faults.check(size, size)
            yield Part(unit, number, (keys, pixels, ok, reasons))

    def _square(self, data: bytes) -> np.ndarray:
        image = flatten(open_picture(data))
        if self.whole:
            return np.asarray(resize(image, self.size, self.interpolation))
        return np.asarray(middle_square(image, self.size, self.interpolation))

    def encoder(self) -> Encoder:
        """The CLIP's picture tower."""
        return _EmbedEncoder(self)

    def finish(self, unit: int, parts: Sequence[Any]) -> None:
        """Write the sidecar."""
        name = self.dataset.units[unit].name
        keys = [key for part in parts for key in part[0]]
        rows, ok = (np.concatenate([part[one] for part in parts]) for one in (1, 2))
        data = encode_sidecar(self.origin, name, keys, rows, ok, state=self.dataset.state(unit))
        self._store.put(self.origin.name(name), data)
        reasons = {key: reason for part in parts for key, reason in part[3].items()}
        if reasons:
            named = "; ".join(f"{key} ({reason})" for key, reason in list(reasons.items())[:_NAMED])
            more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
            logger.warning(
                "%d of %d pictures have no %s: %s%s", len(reasons), len(keys), self.made, named, more
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_store"}


class _Names(Sequence[str]):
    def __init__(self, units: Sequence[Unit]):
        self._units = units

    def __len__(self) -> int:
        return len(self._units)

    def __getitem__(self, number: Any) -> Any:
        return self._units[number].name


class _EmbedEncoder:
    def __init__(self, work: EmbedWork):
        from unclip.generate.model import Model

        self._model = work.model
        self._parts = Model.load(work.model, device=work.device, dtype=work.dtype).parts

    def __call__(self, part: Part) -> Part:
        """Embeddings of the good pictures of a part, as float16; a part with an error where they are not finite."""
        import torch
        from einops import rearrange

        from unclip.images import from_uint8
        from unclip.networks.clip import Clip

        keys, pixels, ok, reasons = part.data
        with torch.no_grad(), self._parts.lend("clip", Clip) as clip:
            pictures = rearrange(torch.from_numpy(pixels), "b h w c -> b c h w").to(self._parts.device)
            rows = clip.encode_image(from_uint8(pictures)).float().cpu().numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            kept = rows.astype(np.float16)
        wrong = np.flatnonzero(ok & ~np.isfinite(kept).all(1))
        if len(wrong):
            return Part(
                part.unit, part.number, error=self._not_finite(keys[wrong[0]], rows[wrong[0]], len(wrong))
            )
        return Part(part.unit, part.number, (keys, kept, ok, reasons))

    def _not_finite(self, key: str, row: np.ndarray, count: int) -> str:
        if np.isfinite(row).all():
            what = f"{np.abs(row).max():.4g}, which float16 does not hold: embeddings of this CLIP cannot be stored"
        else:
            what = "numbers that are not finite: its weights are damaged, or too large for the number type"
        return f"the CLIP of {self._model} embeds {count} pictures, such as {key}, as {what}"


def embed_work(
    dataset: StreamDataset,
    out: str | os.PathLike[str],
    *,
    model: str,
    batch: int = 64,
    device: str | None = None,
    dtype: str = "float32",
    bad_share: float = 0.01,
) -> EmbedWork:
    """The work of embedding a data set with the CLIP of a model."""
    from unclip.checkpoints.weights_digest import weights_digest
    from unclip.generate.model import Model
    from unclip.networks.clip import Clip

    parts = Model.load(model, device="cpu").parts
    tower = parts.config("clip").vision
    with parts.lend("clip", Clip) as clip:
        digest = weights_digest(clip)
    return EmbedWork(
        dataset,
        out,
        model=model,
        digest=digest,
        size=tower.size,
        whole=tower.resize == "squash",
        interpolation=tower.interpolation,
        batch=batch,
        device=device,
        dtype=dtype,
        bad_share=bad_share,
    )
