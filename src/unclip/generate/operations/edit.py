"""Inpainting: a part of a picture is drawn under a caption; all other pixels keep their bits, alpha included.

The decoder reads the known part at its own size, as its inpainting inputs where it has them (GLIDE, section 2.4), else by
RePaint; its result is blended into the colours around the hole. The upsamplers then work against the known pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from unclip import stages
from unclip.config import Param
from unclip.errors import RequestError
from unclip.generate.prompted import Prompted, prompted
from unclip.generate.request import Count, Request, Sources
from unclip.stages.sampling import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from torch import Tensor

    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source
    from unclip.stages.conditioner import Condition

SOFT = (
    "partly transparent pixels of the picture are kept with their transparency: to draw them too, give a mask, or make "
    "them fully transparent"
)


@dataclass(frozen=True, kw_only=True)
class Edit(Prompted):
    """A part of a picture drawn under a prompt: the pixels of a mask, a box, or the picture's transparent pixels.

    Only fully transparent pixels count as transparent. What a soft eraser thinned (alpha 1 to 254) is kept as it is,
    unless a mask or a box says otherwise; drawn pixels are opaque.
    """

    kind: Literal["edit"] = "edit"
    box: Annotated[
        tuple[int, int, int, int] | None,
        Param("rectangle to draw, left,top,right,bottom in pixels, in place of a mask", metavar="L,T,R,B"),
    ] = None
    n: Count = 1

    sources: ClassVar[Sources] = Sources(("picture", "mask"), 1)
    composite: ClassVar[bool] = True

    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """As `Prompted`, and inpainting."""
        return (*super().needs(sampling), "inpainting")

    def run(self, session: "Session", sources: "Sequence[Source]") -> "Iterator[Image]":
        """`n` pictures of the source's size."""
        source, *masks = sources
        if masks and self.box is not None:
            raise RequestError("give a mask or a box, not both")
        windows = stages.windows
        hole = windows.read_mask(source.image, masks[0].image if masks else None, self.box)
        window, pixels = session.window(hole), session.pixels(source)
        extent = session.drawn_at(window.extent)

        def draw(condition: "Condition", seed: int, index: int) -> "Tensor":
            return session.fill(pixels, hole, window, condition, seed, extent=extent, first=index)

        def alone(seed: int) -> Request:
            return replace(self, n=1, seed=seed)

        def finish(drawn: "PillowImage") -> "PillowImage":
            return stages.transparency.keep(drawn, source.image, hole)

        if not masks and self.box is None and stages.transparency.is_soft(source.image):
            session.warn(SOFT)
        return prompted(
            session,
            self,
            draw,
            alone,
            steps=session.fill_steps(extent),
            n=self.n,
            sources=sources,
            finish=finish,
        )
