"""Reconstruction of a picture from its own (z_i, x_T) (arXiv 2204.06125, section 3): how much of it the two hold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from unclip import stages
from unclip.generate.request import Request, Size, Sources, resolve_inversion
from unclip.stages.extent import Sides
from unclip.stages.sampling import Sampling

if TYPE_CHECKING:
    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Request):
    """A picture decoded from its own embedding and noise; `results.psnr` compares them at the decoder's size, in dB."""

    kind: Literal["reconstruct"] = "reconstruct"
    size: Size = None

    sources: ClassVar[Sources] = Sources(("picture",), 1)

    def resolve(self, defaults: Sampling) -> Sampling:
        """Sampling for an inversion."""
        return resolve_inversion(self.sampling, defaults)

    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """A decoder that can be inverted, and the image encoder where it reads embeddings."""
        return ("decoder", "own_embedding", "inversion")

    def run(self, session: "Session", sources: "Sequence[Source]") -> "Iterator[Image]":
        """One picture."""
        size = session.size(self.size)
        session.begin(
            once=session.inversion_steps, each=session.render_steps(size, inverted=True), pictures=1
        )
        return self._draw(session, sources, size)

    def _draw(self, session: "Session", sources: "Sequence[Source]", size: Sides) -> "Iterator[Image]":
        (source,) = sources
        z_i, x_T = session.invert(source, size)
        seeds = session.seeds([session.seed])
        condition = stages.conditioner.Condition(z_i=None if z_i is None else z_i[None])
        small = session.decode(condition, seeds, x_T=x_T[None])
        psnr = stages.likeness.psnr(small[0].cpu(), source.middle(session.extent(size)))
        pixels = session.enlarge(small, seeds, size)
        alone = replace(self, size=size, seed=session.seed)
        yield session.result(pixels[0], alone, z_i=z_i, sources=sources, results={"psnr": round(psnr, 2)})
