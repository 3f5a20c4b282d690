"""Interpolation between two pictures (arXiv 2204.06125, section 3.2): z_i along the arc, x_T along it or fixed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from unclip import stages
from unclip.config import Param
from unclip.generate.drawing import Drawing
from unclip.generate.operations.path import Frames, Thetas, path_thetas
from unclip.generate.request import Request, Size, Sources, resolve_inversion
from unclip.stages.sampling import Sampling, settled

if TYPE_CHECKING:
    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source


@dataclass(frozen=True, kw_only=True)
class Interpolate(Request):
    """Pictures on the way from one to another."""

    kind: Literal["interpolate"] = "interpolate"
    frames: Frames = 7
    thetas: Thetas = None
    noise: Annotated[
        Literal["inverted", "fixed"],
        Param("x_T: from the first picture's inversion to the last's, or the seed's on the whole path"),
    ] = "inverted"
    path: Annotated[
        Literal["arc", "line"],
        Param("embeddings between: along the arc (slerp), or on the line, a weighted sum as in Kandinsky"),
    ] = "arc"
    size: Size = None

    sources: ClassVar[Sources] = Sources(("first", "last"), 2)

    def resolve(self, defaults: Sampling) -> Sampling:
        """Sampling for an inversion where the noise is inverted."""
        if self.noise == "fixed":
            return super().resolve(defaults)
        return resolve_inversion(self.sampling, defaults)

    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """Image encoder and decoder; with inverted noise, inversion."""
        return (
            "image_encoder",
            "decoder",
            "image_embedding",
            *(("inversion",) if self.noise == "inverted" else ()),
        )

    def run(self, session: "Session", sources: "Sequence[Source]") -> "Iterator[Image]":
        """One picture per position on the path."""
        thetas = path_thetas(self.thetas, self.frames)
        size, inverted = session.size(self.size), self.noise == "inverted"
        session.begin(
            once=2 * session.inversion_steps if inverted else 0,
            each=session.render_steps(size, inverted=inverted),
            pictures=len(thetas),
        )
        if inverted:
            (z_a, x_a), (z_b, x_b) = (session.invert(source, size) for source in sources)
        else:
            (z_a, z_b), x_a, x_b = session.embed_images(sources), None, None
        between = stages.space.between
        drawings = []
        for theta in thetas:
            x_T = None if x_a is None or x_b is None else between(x_a, x_b, theta)
            alone = replace(self, frames=None, thetas=(theta,), size=size, seed=session.seed)
            z_a, z_b = settled(z_a), settled(z_b)
            z_i = between(z_a, z_b, theta) if self.path == "arc" else z_a.lerp(z_b, theta)
            drawings.append(Drawing(alone, z_i, x_T))
        return session.draw(drawings, size, sources=sources)
