"""Image-to-image with a prompt: sampling starts from a picture with noise added (SDEdit, arXiv 2108.01073)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from unclip.config import Param
from unclip.generate.prompted import Prompted, prompted
from unclip.generate.request import Count, Request, Size, Sources

if TYPE_CHECKING:
    from torch import Tensor

    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source
    from unclip.stages.conditioner import Condition


@dataclass(frozen=True, kw_only=True)
class Redraw(Prompted):
    """Pictures of a prompt that start from a picture."""

    kind: Literal["redraw"] = "redraw"
    strength: Annotated[
        float,
        Param(
            "share of the noise levels that is redrawn: near 0 keeps the picture, 1 hardly keeps its colours",
            gt=0,
            le=1,
        ),
    ] = 0.7
    n: Count = 1
    size: Size = None

    sources: ClassVar[Sources] = Sources(("picture",), 1)

    def run(self, session: "Session", sources: "Sequence[Source]") -> "Iterator[Image]":
        """`n` pictures."""
        size = session.size(self.size)
        steps = len(session.decoder_grid(self.strength)) - 1 + session.later_steps(size)
        start = sources[0].middle(session.extent(size))[None]

        def draw(condition: "Condition", seed: int, index: int) -> "Tensor":
            seeds = session.streams(seed)
            small = session.decode(
                condition, seeds, start=start, strength=self.strength, size=size, first=index
            )
            return session.enlarge(small, seeds, size, captions=condition.captions, first=index)[0]

        def alone(seed: int) -> Request:
            return replace(self, n=1, size=size, seed=seed)

        return prompted(session, self, draw, alone, steps=steps, n=self.n, sources=sources)
