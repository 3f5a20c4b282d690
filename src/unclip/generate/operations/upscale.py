"""Enlargement of pictures of any shape by the upsamplers alone (arXiv 2204.06125, section 2.1), in tiles where large."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from unclip import stages
from unclip.config import Param
from unclip.generate.request import Request, Sources
from unclip.stages.sampling import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source


@dataclass(frozen=True, kw_only=True)
class Upscale(Request):
    """A picture enlarged by the upsamplers. Its alpha is enlarged bicubically, apart from its colours."""

    kind: Literal["upscale"] = "upscale"
    size: Annotated[
        int | None,
        Param("longer side of the result in pixels; what one upsampler makes if not given", ge=1, le=65_536),
    ] = None

    sources: ClassVar[Sources] = Sources(("picture",), 1)
    stages: ClassVar[tuple[str, ...]] = ("upsamplers",)
    composite: ClassVar[bool] = True

    def resolve(self, defaults: Sampling) -> Sampling:
        """Sampling in which settings of one upsampler serve all of them."""
        given = self.sampling
        if len(given.upsamplers) == 1:
            given = replace(given, upsamplers=given.upsamplers * max(2, len(defaults.upsamplers)))
        return given.over(defaults)

    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """Upsamplers."""
        return ("upsampler",)

    def run(self, session: "Session", sources: "Sequence[Source]") -> "Iterator[Image]":
        """One picture."""
        links, target = stages.cascade.plan_enlargement(
            session.parts.cascade, *sources[0].image.size, self.size
        )
        session.begin(each=session.cascade_steps(links), pictures=1)
        return self._draw(session, sources, links, target)

    def _draw(self, session: "Session", sources: "Sequence[Source]", links, target) -> "Iterator[Image]":
        seeds = session.seeds([session.seed])
        picture = sources[0].image
        alpha = stages.transparency.alpha_of(picture)
        pixels = stages.transparency.colours(picture)[None].to(session.device)
        for link in links:
            # The last rows and columns are repeated up to a size that the network can divide; then cut off again.
            padded, (height, width) = stages.cascade.padded(pixels, link.config)
            pixels = session.upsample(link, padded, seeds, tile=link.tile)[..., :height, :width]

        def finish(drawn: "PillowImage") -> "PillowImage":
            return stages.transparency.with_alpha(drawn, alpha)

        alone = replace(self, size=max(target), seed=session.seed)
        yield session.result(pixels[0], alone, sources=sources, resize=target, finish=finish)
