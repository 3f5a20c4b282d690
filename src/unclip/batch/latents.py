"""Latents of a data set by an autoencoder, as sidecar files: mean and log variance of each picture (`unclip latents`)."""

import os
from typing import Any

import numpy as np

from unclip.batch.embed import EmbedWork
from unclip.batch.work import Encoder, Part
from unclip.data.decode import decode
from unclip.data.stream.dataset import StreamDataset
from unclip.data.stream.sidecar import LATENT, Origin

EXACT = -100.0
"""Log variance of a latent without a distribution, such as MoVQ's."""


class LatentsWork(EmbedWork):
    """The work of `unclip latents`; as `EmbedWork`, with the autoencoder of a model and squares as training decodes them."""

    made = "latent"

    def __init__(
        self,
        dataset: StreamDataset,
        out: str | os.PathLike[str],
        *,
        model: str,
        digest: str,
        size: int,
        batch: int = 16,
        device: str | None = None,
        dtype: str = "float32",
        bad_share: float = 0.01,
    ):
        super().__init__(
            dataset,
            out,
            model=model,
            digest=digest,
            size=size,
            whole=False,
            interpolation="bicubic",
            batch=batch,
            device=device,
            dtype=dtype,
            bad_share=bad_share,
        )
        prepared = f"middle square, {size} px, area or bicubic, on white, {dtype}"
        # Latents of several sizes may lie side by side.
        self.origin = Origin(kind=f"{LATENT}{size}", model=digest, preprocessing=prepared)

    def _square(self, data: bytes) -> np.ndarray:
        return decode(data, self.size).transpose(1, 2, 0)

    def encoder(self) -> Encoder:
        """The autoencoder's encoder."""
        return _LatentsEncoder(self)


class _LatentsEncoder:
    def __init__(self, work: LatentsWork):
        import torch

        from unclip.generate.model import Model

        self._model = work.model
        self._parts = Model.load(work.model, device=work.device, dtype=work.dtype).parts
        self._kind: Any = torch.nn.Module

    def __call__(self, part: Part) -> Part:
        """Mean and log variance of the good pictures of a part, as float16; a part with an error where float16 holds them not."""
        import torch
        from einops import rearrange

        from unclip.images import from_uint8

        keys, pixels, ok, reasons = part.data
        with torch.no_grad(), self._parts.lend("autoencoder", self._kind) as network:
            pictures = rearrange(torch.from_numpy(pixels), "b h w c -> b c h w").to(self._parts.device)
            found = network.encode(from_uint8(pictures))
        rows = np.stack([one.float().cpu().numpy() for one in _distribution(found)], axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            kept = rows.astype(np.float16)
        wrong = np.flatnonzero(ok & ~np.isfinite(kept).reshape(len(kept), -1).all(1))
        if len(wrong):
            reason = f"encodes {len(wrong)} pictures, such as {keys[wrong[0]]}, as numbers that float16 does not hold"
            return Part(part.unit, part.number, error=f"the autoencoder of {self._model} {reason}")
        return Part(part.unit, part.number, (keys, kept, ok, reasons))


def _distribution(found: Any) -> tuple[Any, Any]:
    """Mean and log variance of what an autoencoder gives: a `Posterior`, or a latent."""
    from unclip.networks.autoencoder import Posterior

    if isinstance(found, Posterior):
        return found.mean, found.log_variance
    return found, found.new_full(found.shape, EXACT)


def latents_work(
    dataset: StreamDataset,
    out: str | os.PathLike[str],
    *,
    model: str,
    size: int,
    batch: int = 16,
    device: str | None = None,
    dtype: str = "float32",
    bad_share: float = 0.01,
) -> LatentsWork:
    """The work of encoding a data set, at `size` pixels a side, with the autoencoder of a model.

    Raises `Unsupported` for a model without one, and ValueError for a size that it does not divide.
    """
    import torch

    from unclip.checkpoints.weights_digest import weights_digest
    from unclip.generate.model import Model

    parts = Model.load(model, device="cpu").parts
    factor = parts.config("autoencoder").factor
    if size < 1 or size % factor:
        raise ValueError(f"the size is {size}; for this autoencoder it must be a multiple of {factor}")
    with parts.lend("autoencoder", torch.nn.Module) as network:
        digest = weights_digest(network)
    return LatentsWork(
        dataset,
        out,
        model=model,
        digest=digest,
        size=size,
        batch=batch,
        device=device,
        dtype=dtype,
        bad_share=bad_share,
    )
