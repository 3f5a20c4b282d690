"""Text diffs (arXiv 2204.06125, section 3.3): z_i turned along the difference of two captions, x_T kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from unclip import stages
from unclip.config import Param
from unclip.generate.drawing import Drawing
from unclip.generate.operations.path import Frames, Thetas, path_thetas
from unclip.generate.request import Request, Size, Sources, check_prompt, resolve_inversion
from unclip.stages.sampling import Sampling, settled

if TYPE_CHECKING:
    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source


@dataclass(frozen=True, kw_only=True)
class TextDiff(Request):
    """Pictures led from what one caption says to what another says."""

    kind: Literal["text_diff"] = "text_diff"
    target: Annotated[str, Param("caption that the picture is turned to")]
    baseline: Annotated[str, Param("caption of the picture as it is; an empty caption if not given")] = ""
    maximum: Annotated[float, Param("end of the path, 0 to 1; the paper uses 0.25 to 0.5", ge=0, le=1)] = 0.5
    frames: Frames = 5
    thetas: Thetas = None
    size: Size = None

    sources: ClassVar[Sources] = Sources(("picture",), 1)

    def __post_init__(self) -> None:
        """Raise `RequestError` for an empty target or a value out of range."""
        super().__post_init__()
        check_prompt(self.target, "the target caption")

    def resolve(self, defaults: Sampling) -> Sampling:
        """Sampling for an inversion."""
        return resolve_inversion(self.sampling, defaults)

    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """Both encoders, and a decoder that can be inverted."""
        return ("text_encoder", "image_encoder", "decoder", "image_embedding", "inversion")

    def run(self, session: "Session", sources: "Sequence[Source]") -> "Iterator[Image]":
        """One picture per position on the path."""
        thetas = path_thetas(self.thetas, self.frames, self.maximum)
        size = session.size(self.size)
        session.begin(
            once=session.inversion_steps,
            each=session.render_steps(size, inverted=True),
            pictures=len(thetas),
        )
        session.warn_if_truncated(self.target, self.baseline)
        space = session.parts.space
        z_t, z_t0 = session.embed_text([self.target, self.baseline])
        z_d = space.difference(z_t, z_t0)
        inverted, x_T = session.invert(sources[0], size)
        z_i = settled(inverted)
        z_d = space.at_length_of(z_d, z_i)
        drawings = [
            Drawing(
                replace(self, frames=None, thetas=(theta,), size=size, seed=session.seed),
                stages.space.between(z_i, z_d, theta),
                x_T,
            )
            for theta in thetas
        ]
        return session.draw(drawings, size, sources=sources)
