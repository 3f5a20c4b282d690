"""Shared driver of the operations that draw a picture under a prompt, starting from a given one (edit, redraw)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from unclip import stages
from unclip.config import Param
from unclip.generate.request import Negative, Request, check_prompt, given_text, prior_needs
from unclip.stages.sampling import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from torch import Tensor

    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source
    from unclip.stages.conditioner import Condition

Draw = Callable[["Condition", int, int], "Tensor"]
"""Pixels (3 h w) of a condition, a seed, and the picture's index in the call."""


@dataclass(frozen=True, kw_only=True)
class Prompted(Request):
    """Base of requests with a prompt of the whole result."""

    prompt: Annotated[str, Param("what the whole result shows")]
    negative: Negative = None

    stages: ClassVar[tuple[str, ...]] = ("prior", "decoder", "upsamplers")

    def __post_init__(self) -> None:
        """Raise `RequestError` for an empty prompt or a value out of range."""
        super().__post_init__()
        check_prompt(self.prompt)

    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """Text encoder and decoder, and what gives the image embedding."""
        return ("prompt", "decoder", *prior_needs(sampling))


def prompted(
    session: "Session",
    request: Prompted,
    draw: Draw,
    alone: Callable[[int], Request],
    *,
    steps: int,
    n: int,
    sources: "Sequence[Source]",
    finish: "Callable[[PillowImage], PillowImage] | None" = None,
) -> "Iterator[Image]":
    """`n` pictures by `draw`, which takes `steps` steps each; `alone(seed)` is the request that makes one of them.

    `finish` is that of `Session.result`.
    """
    negative = given_text(request.negative)
    session.warn_if_truncated(request.prompt, negative)
    session.begin(each=session.prior_steps + steps, pictures=n, batched=False)

    def draw_all() -> "Iterator[Image]":
        for index in range(n):
            seed = session.seed_of(index)
            condition = read_condition(session, request.prompt, negative, seed, index)
            pixels = draw(condition, seed, index)
            z_i = None if condition.z_i is None else condition.z_i[0]
            yield session.result(pixels, alone(seed), z_i=z_i, sources=sources, prior=True, finish=finish)

    return draw_all()


def read_condition(
    session: "Session", prompt: str, negative: str | None, seed: int, index: int = 0
) -> "Condition":
    """Condition of one picture: the caption, z_i from the prior, and the negative prompt."""
    captions = session.captions([prompt])
    away = None if negative is None else session.captions([negative])
    z_i, z_null = session.sample_embeddings(captions, session.streams(seed), away, index)
    return stages.conditioner.Condition(z_i=z_i, captions=captions, negative=away, z_null=z_null)
