"""Progress of a call: one event per step of each stage, each with a preview that costs nothing unless asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import Image as PillowImage
from torch import Tensor

from unclip.diffusion.denoiser import Step
from unclip.images.tensors import to_image
from unclip.stages.codec import Codec

Stage = Literal["prior", "inversion", "decoder", "upsampler", "encoding latents", "decoding latents"]
"""Stages of a call; the last two are the work of a latent model's autoencoder, which counts in tiles."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """One finished step: `step` of `total` of a stage, while making pictures `first`, `first` + 1, ... of `pictures`.

    Step 0 says that the stage begins; latent models, whose parts take long to load, have it. `fraction` in [0, 1] is the
    finished share of the whole call, in steps. `x0` is the clean estimate; of the other work, its input.
    """

    stage: Stage
    step: int
    total: int
    first: int
    pictures: int
    fraction: float
    x0: Tensor
    codec: Codec | None = None

    def previews(self) -> list[PillowImage.Image]:
        """The pictures as they look so far, at the size of the stage; none while the prior samples embeddings."""
        return [] if self.codec is None else [to_image(one) for one in self.codec.preview(self.x0)]


Callback = Callable[[Progress], object]
"""Called after every step. An exception raised in it, such as `unclip.Cancelled`, ends the call and reaches the caller."""


class Reporter:
    """Counter of the steps of a whole call, which calls the callback."""

    def __init__(self, callback: Callback | None, steps: int, pictures: int):
        self.callback, self.steps, self.pictures, self.done = callback, steps, pictures, 0

    def follow(
        self, sampler: Iterator[Step], stage: Stage, total: int, first: int = 0, codec: Codec | None = None
    ) -> Tensor:
        """Last state of a sampler that is run to its end; each of its `total` steps is reported."""
        x = None
        for step in sampler:
            x = step.x
            self.done += 1
            self.report(stage, step.i + 1, total, first, step.x0, codec)
        if x is None:
            raise ValueError("the sampler made no step")
        return x

    def report(
        self, stage: Stage, step: int, total: int, first: int, x0: Tensor, codec: Codec | None = None
    ) -> None:
        """Call the callback with how far a stage is."""
        if self.callback is None:
            return
        event = Progress(
            stage=stage,
            step=step,
            total=total,
            first=first,
            pictures=self.pictures,
            fraction=min(self.done / self.steps, 1.0) if self.steps else 0.0,
            x0=x0,
            codec=codec,
        )
        self.callback(event)
