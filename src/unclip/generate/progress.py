"""What happens while pictures are made: one event a sampling step, each with a preview that costs nothing unseen."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from torch import Tensor

from unclip.diffusion.denoiser import Step
from unclip.images.tensors import to_image

Stage = Literal["prior", "inversion", "decoder", "upsampler"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """One step done: step `step` of `total` of a stage, while making pictures `first`, `first` + 1, ... of `pictures`.

    `fraction` in (0, 1] says how much of the whole call is done, in steps.
    """

    stage: Stage
    step: int
    total: int
    first: int
    pictures: int
    fraction: float
    x0: Tensor

    def previews(self) -> list[Image.Image]:
        """The pictures as they look so far, in the size of the stage; none yet while the prior samples embeddings."""
        if self.stage == "prior":
            return []
        return [to_image(one) for one in self.x0]


Callback = Callable[[Progress], object]
"""Called after every step; an exception raised in it ends the call, and reaches the caller."""


class Reporter:
    """Counts the steps of a whole call and tells the callback."""

    def __init__(self, callback: Callback | None, steps: int, pictures: int):
        self.callback, self.steps, self.pictures, self.done = callback, steps, pictures, 0

    def follow(self, sampler: Iterator[Step], stage: Stage, total: int, first: int = 0) -> Tensor:
        """Run a sampler to its end and return its last state, reporting each of its `total` steps."""
        x = None
        for step in sampler:
            x = step.x
            self.done += 1
            if self.callback is not None:
                event = Progress(
                    stage=stage,
                    step=step.i + 1,
                    total=total,
                    first=first,
                    pictures=self.pictures,
                    fraction=min(self.done / self.steps, 1.0),
                    x0=step.x0,
                )
                self.callback(event)
        if x is None:
            raise ValueError("the sampler made no step")
        return x
