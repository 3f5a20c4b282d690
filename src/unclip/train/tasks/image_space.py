"""What decoders learn: pixels of a data set, or its latents by a frozen autoencoder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unclip.rng import Noise
from unclip.stages.codec import Codec, PixelCodec
from unclip.stages.latent_form import LatentForm
from unclip.train.config import TrainConfig
from unclip.train.latents import AutoencoderRun
from unclip.train.source import Source


class PixelSpace:
    """Pictures themselves."""

    codec: Codec = PixelCodec()
    form: LatentForm | None = None

    def learned(
        self, source: Source, indices: Int64[np.ndarray, " b"], noise: Noise
    ) -> Float[Tensor, "b c h w"]:
        """Training pictures by index."""
        return source.pictures(indices)

    def held_out(self, source: Source, indices: Int64[np.ndarray, " b"]) -> Float[Tensor, "b c h w"]:
        """Held-out pictures by index."""
        return source.pictures(indices)

    def check(self, model: Any) -> None:
        """Raise ValueError for a decoder of another number of channels."""
        if model.channels != 3:
            raise ValueError(
                f"model.channels is {model.channels}, and pictures have 3: train the stage latent_decoder on latents"
            )


class LatentSpace:
    """Latents of the training and the held-out pictures, standardised, kept beside the run."""

    def __init__(
        self,
        autoencoder: str,
        config: TrainConfig,
        sources: tuple[Source, Source],
        device: torch.device,
        *,
        flip: bool = False,
    ):
        self.device = device
        self.run = AutoencoderRun(autoencoder, config.stage, device)
        self.codec: Codec = self.run.codec
        self.form: LatentForm | None = self.run.form
        self.size = config.data.size
        cache = Path(config.out).parent / "latents"
        self._train, self._held_out = (
            self.run.latents(source, cache, flip=flip and source is sources[0], place=config.data.latents)
            for source in sources
        )

    def learned(
        self, source: Source, indices: Int64[np.ndarray, " b"], noise: Noise
    ) -> Float[Tensor, "b c h w"]:
        """Latents of training pictures, drawn from their posteriors by `noise`."""
        return self.run.standardised(self._train.sample(indices, noise, self.device))

    def held_out(self, source: Source, indices: Int64[np.ndarray, " b"]) -> Float[Tensor, "b c h w"]:
        """Mean latents of held-out pictures."""
        return self.run.standardised(self._held_out.mean(indices, self.device))

    def check(self, model: Any) -> None:
        """Raise ValueError for a decoder that draws other latents."""
        if model.channels != self.codec.channels:
            raise ValueError(
                f"model.channels is {model.channels}, this autoencoder's latents have {self.codec.channels}: set "
                "model.channels and the net's channels to that"
            )
        if getattr(model, "factor", self.codec.factor) != self.codec.factor:
            raise ValueError(
                f"model.factor is {model.factor}, this autoencoder reduces pictures by {self.codec.factor}: set model.factor "
                "to that"
            )
        if model.size != self.size:
            raise ValueError(
                f"model.size is {model.size}, the pictures have {self.size} pixels: set both to one size"
            )


def offset(eps: Float[Tensor, "b c h w"], noise: Noise, std: float) -> Float[Tensor, "b c h w"]:
    """Noise shifted by one random number for each picture and channel."""
    if not std:
        return eps
    shift = noise.fork("offset").normal(eps.shape[1]).to(eps)
    return eps + std * shift[:, :, None, None]
