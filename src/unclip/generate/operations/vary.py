"""Variations of a picture (arXiv 2204.06125, section 3.1): what z_i holds stays, the rest is sampled again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from unclip.config import Param
from unclip.generate.drawing import Drawing
from unclip.generate.request import Count, Request, Size, Sources, resolve_inversion
from unclip.stages.sampling import Sampling, settled

if TYPE_CHECKING:
    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source


@dataclass(frozen=True, kw_only=True)
class Vary(Request):
    """Variations of a picture: the same meaning and style, other details."""

    kind: Literal["vary"] = "vary"
    n: Count = 4
    eta: Annotated[
        float | None,
        Param(
            "start from the picture's own noise: 0 gives the picture back, 1 adds as much noise as DDPM; "
            "from fresh noise if not given",
            ge=0,
            le=1,
        ),
    ] = None
    size: Size = None

    sources: ClassVar[Sources] = Sources(("picture",), 1)

    def resolve(self, defaults: Sampling) -> Sampling:
        """Sampling for an inversion where `eta` is given."""
        return super().resolve(defaults) if self.eta is None else resolve_inversion(self.sampling, defaults)

    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """Image encoder and decoder; with `eta`, inversion."""
        return ("image_encoder", "decoder", "image_embedding", *(() if self.eta is None else ("inversion",)))

    def run(self, session: "Session", sources: "Sequence[Source]") -> "Iterator[Image]":
        """`n` variations."""
        size, inverted = session.size(self.size), self.eta is not None
        session.begin(
            once=session.inversion_steps if inverted else 0,
            each=session.render_steps(size, inverted=inverted),
            pictures=self.n,
        )
        z_i, x_T = session.invert(sources[0], size) if inverted else (session.embed_images(sources)[0], None)
        drawings = [
            Drawing(replace(self, n=1, size=size, seed=session.seed_of(index)), settled(z_i), x_T)
            for index in range(self.n)
        ]
        return session.draw(drawings, size, sources=sources, eta=self.eta or 0.0)
