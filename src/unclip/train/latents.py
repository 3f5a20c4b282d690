"""Latents of a data set by a frozen autoencoder: encoded once, kept by the digest of each picture, sampled at each visit."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64
from torch import Tensor

from unclip.checkpoints.weights_digest import weights_digest
from unclip.data.stream.open import beside
from unclip.data.stream.sidecar import LATENT, SidecarError, Sidecars
from unclip.disk import remove_abandoned, reserve
from unclip.errors import ModelError
from unclip.formats.opened import open_model
from unclip.images import write_atomically
from unclip.networks.autoencoder import Posterior, standardised
from unclip.rng import Noise
from unclip.stages.codec import LatentCodec
from unclip.train.source import Source
from unclip.train.streamed import StreamedSource

logger = logging.getLogger(__name__)

ROOM = "make room, or keep the run on another disk (--out)"
EXACT = -100.0
"""Log variance of a latent without a distribution."""


class Latents(NamedTuple):
    """Mean and log variance of the latents of pictures, one row per flip; float16, memory-mapped."""

    rows: Float16[np.ndarray, "m f two c h w"]
    places: Int64[np.ndarray, " n"]
    """For each sample its row."""

    def sample(
        self, indices: Int64[np.ndarray, " b"], noise: Noise, device: torch.device
    ) -> Float[Tensor, "b c h w"]:
        """Latents of samples by index, drawn by `noise`: which way the picture faces, and where in its posterior."""
        flips = self.rows.shape[1]
        faces = noise.fork("face").integers(flips).cpu().numpy()
        return _drawn(self._read(indices, faces, device), noise)

    def mean(self, indices: Int64[np.ndarray, " b"], device: torch.device) -> Float[Tensor, "b c h w"]:
        """Means of the latents of samples by index, not flipped."""
        return self._read(indices, np.zeros(len(indices), dtype=np.int64), device)[:, 0]

    def _read(
        self, indices: Int64[np.ndarray, " b"], faces: Int64[np.ndarray, " b"], device: torch.device
    ) -> Float[Tensor, "b two c h w"]:
        return torch.from_numpy(self.rows[self.places[indices], faces]).to(device).float()


class JoinedLatents:
    """Latents of streamed data from sidecar files, joined to samples by key; nothing of them is held."""

    def __init__(self, source: StreamedSource, kind: str):
        self.source, self.kind = source, kind

    def sample(
        self, indices: Int64[np.ndarray, " b"], noise: Noise, device: torch.device
    ) -> Float[Tensor, "b c h w"]:
        """Latents of samples by index, drawn by `noise` from their posteriors."""
        return _drawn(self._read(indices, device), noise)

    def mean(self, indices: Int64[np.ndarray, " b"], device: torch.device) -> Float[Tensor, "b c h w"]:
        """Means of the latents of samples by index."""
        return self._read(indices, device)[:, 0]

    def _read(self, indices: Int64[np.ndarray, " b"], device: torch.device) -> Float[Tensor, "b two c h w"]:
        return torch.from_numpy(self.source.joined(self.kind, indices)).to(device).float()


class EncodedLatents:
    """Latents of streamed data, encoded whenever a batch is read."""

    def __init__(self, source: StreamedSource, run: "AutoencoderRun", flip: bool):
        self.source, self.run, self.flip = source, run, flip

    def sample(
        self, indices: Int64[np.ndarray, " b"], noise: Noise, device: torch.device
    ) -> Float[Tensor, "b c h w"]:
        """Latents of samples by index, drawn by `noise`: which way the picture faces, and where in its posterior."""
        pictures = self.source.pictures(indices)
        if self.flip:
            faces = noise.fork("face").integers(2).to(pictures.device)
            pictures = torch.where(faces.bool()[:, None, None, None], pictures.flip(-1), pictures)
        return _drawn(self._encoded(pictures, indices).to(device), noise)

    def mean(self, indices: Int64[np.ndarray, " b"], device: torch.device) -> Float[Tensor, "b c h w"]:
        """Means of the latents of samples by index, not flipped."""
        return self._encoded(self.source.pictures(indices), indices).to(device)[:, 0]

    def _encoded(
        self, pictures: Float[Tensor, "b 3 s s"], indices: Int64[np.ndarray, " b"]
    ) -> Float[Tensor, "b two c h w"]:
        # Rounded as files of latents are.
        kept = self.run.encoded(pictures).half()
        if odd := _not_finite(kept):
            raise self.run._refused([self.source.decoded.samples[indices[one]].key for one in odd])
        return kept.float()


def _drawn(latents: Float[Tensor, "b two c h w"], noise: Noise) -> Float[Tensor, "b c h w"]:
    """Samples of posteriors, given as mean and log variance."""
    mean, log_variance = latents.unbind(1)
    eps = noise.fork("latent").normal(*mean.shape[1:]).to(mean)
    return mean + (0.5 * log_variance).exp() * eps


class AutoencoderRun:
    """Frozen autoencoder of a finished run, a model folder, or a model in a public format."""

    def __init__(self, folder: str, stage: str, device: torch.device):
        if not folder:
            raise ValueError(
                f"the {stage} stage learns latents: train an autoencoder first, or name a model with one with "
                "autoencoder=FOLDER"
            )
        path = Path(folder)
        inner = path / "model"
        opened = open_model(inner if (inner / "model.json").is_file() else folder)
        if "autoencoder" not in opened.parts:
            raise ValueError(
                f"{folder} holds {', '.join(opened.parts)} but no autoencoder: name a folder with one"
            )
        part = opened.parts["autoencoder"]
        self.folder = folder
        self.network: Any = part.load(device=device).requires_grad_(False)
        self.config: Any = part.config
        self.form = part.latents()
        """Form of its latents, which a decoder that learns them records."""
        self.device = device
        self.hash = hashlib.sha256(f"{opened.digest} autoencoder".encode()).hexdigest()[:16]

    @property
    def codec(self) -> LatentCodec:
        """Its image space."""
        return LatentCodec(self.config, lambda exact=False: nullcontext(self.network))

    def standardised(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Latents as diffusion sees them."""
        return standardised(latents, self.config)

    @torch.no_grad()
    def latents(
        self, source: Source, cache: Path, *, flip: bool = False, batch: int = 16, place: str | None = None
    ) -> "Latents | JoinedLatents | EncodedLatents":
        """Latents of every picture of `source`; those of pictures that `cache` knows are not encoded again.

        Of streamed data they come from the sidecar files of `unclip latents` at `place`, or beside the data; where there are
        none, or pictures are flipped, they are encoded as they are read.
        """
        size = source.decoded.size
        if size % self.config.factor:
            raise ValueError(
                f"data.size is {size}; for this autoencoder it must be a multiple of {self.config.factor}"
            )
        if isinstance(source, StreamedSource):
            return self._streamed(source, flip=flip, place=place)
        digests = [source.decoded.digests[int(row)] for row in source.decoded.rows]
        stem = cache / f"{self.hash}-{size}{'-flips' if flip else ''}"
        array, record = stem.with_suffix(".npy"), stem.with_suffix(".json")
        known = _known(array, record)
        # The first sample that shows each picture.
        new = {digest: index for index, digest in reversed(list(enumerate(digests))) if digest not in known}
        if new:
            self._extend(array, record, known, new, source, flip=flip, batch=batch)
            known = _known(array, record)
        places = np.array([known[digest] for digest in digests], dtype=np.int64)
        return Latents(np.load(array, mmap_mode="r"), places)

    def _streamed(
        self, source: StreamedSource, *, flip: bool, place: str | None
    ) -> "JoinedLatents | EncodedLatents":
        if flip and place is not None:
            raise ValueError(
                f"{place} holds latents of pictures as they are, and flip wants mirror images too: set flip to false, or leave "
                "data.latents out, so that pictures are encoded as they are read"
            )
        if not flip:
            kind = f"{LATENT}{source.size}"
            sidecars = Sidecars(
                place or beside(source.place), kind, weights_digest(self.network), source.cache
            )
            if sidecars.files:
                source.join(sidecars)
                source.pass_over_pictures()
                return JoinedLatents(source, kind)
            if place is not None:
                raise SidecarError(
                    f"{sidecars.store.url} holds no latents of {source.size} px: make them with `unclip latents`"
                )
        logger.info("%s: no files of latents are used; pictures are encoded as they are read", source.place)
        return EncodedLatents(source, self, flip)

    def _extend(
        self,
        array: Path,
        record: Path,
        known: dict[str, int],
        new: dict[str, int],
        source: Source,
        *,
        flip: bool,
        batch: int,
    ) -> None:
        """Write the known rows and those of new pictures to a new file, then put it in the old one's place."""
        logger.info("encoding %d pictures into %s", len(new), array)
        array.parent.mkdir(parents=True, exist_ok=True)
        side = source.decoded.size // self.config.factor
        shape = (len(known) + len(new), 2 if flip else 1, 2, self.config.latent_channels, side, side)
        fresh = array.with_name(f".writing-{os.getpid()}-{array.name}")
        remove_abandoned(array.parent, f".writing-*-{array.name}")
        try:
            rows = np.lib.format.open_memmap(fresh, mode="w+", dtype=np.float16, shape=shape)
            # Without its room a memory-mapped file ends the process where the disk is full.
            reserve(fresh, fresh.stat().st_size, name=array, what="the latents", remedy=ROOM)
            if known:
                rows[: len(known)] = np.load(array, mmap_mode="r")
            wanted = np.array(list(new.values()), dtype=np.int64)
            for start in range(0, len(wanted), batch):
                these = wanted[start : start + batch]
                pictures = source.pictures(these)
                faces = [self.encoded(pictures)] + ([self.encoded(pictures.flip(-1))] if flip else [])
                place = len(known) + start
                kept = torch.stack(faces, dim=1).cpu().half()
                if odd := _not_finite(kept):
                    raise self._refused([source.decoded.samples[int(these[one])].key for one in odd])
                rows[place : place + len(pictures)] = kept.numpy()
            rows.flush()
            del rows
            # The record of an array that is not there yet would be wrong, and one that is missing only costs time.
            record.unlink(missing_ok=True)
            fresh.replace(array)
        finally:
            fresh.unlink(missing_ok=True)
        data = json.dumps({"format": 1, "pictures": [*known, *new]}).encode()
        write_atomically(record, data, force=True)

    def _refused(self, keys: Sequence[str]) -> ModelError:
        """The error for pictures whose latents float16 does not hold."""
        return ModelError(
            f"the autoencoder in {self.folder} encodes {len(keys)} picture{'s' * (len(keys) != 1)}, such as {keys[0]}, as "
            "numbers that float16 does not hold: its weights are damaged, or it was not trained for such pictures"
        )

    @torch.no_grad()
    def encoded(self, pictures: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b two c h w"]:
        """Mean and log variance of the latents of pictures."""
        found = self.network.encode(pictures)
        if isinstance(found, Posterior):
            return torch.stack([found.mean, found.log_variance], dim=1)
        return torch.stack([found, torch.full_like(found, EXACT)], dim=1)


def _not_finite(rows: Float16[Tensor, "b ..."]) -> list[int]:
    """Which rows hold numbers that are not finite."""
    return torch.nonzero(~torch.isfinite(rows).flatten(1).all(1)).flatten().tolist()


def _known(array: Path, record: Path) -> dict[str, int]:
    """Digest of a picture -> its row, of a complete cache; {} where there is none."""
    try:
        found = json.loads(record.read_bytes())
        pictures: Sequence[str] = found["pictures"] if found.get("format") == 1 else ()
        rows = np.load(array, mmap_mode="r")
    except (OSError, ValueError, KeyError):
        return {}
    return {digest: row for row, digest in enumerate(pictures)} if len(rows) == len(pictures) else {}
