"""Outpainting: a picture continued beyond its sides, square by square, each drawn to fit what is known already.

A caption describes the whole; given to every square, it would be drawn in each of them. So the whole is drafted first at
a small size, then each square is drawn over its part of the draft, with z_i from CLIP's view of that part. Without a
caption, z_i of the draft is that of the picture mirrored at its sides: more of the same, where the picture's own z_i would
put one more of it over each border.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from unclip import stages
from unclip.config import Param
from unclip.errors import RequestError
from unclip.generate.prompted import read_condition
from unclip.generate.request import Negative, Request, Sources, check_prompt, given_text, prior_needs
from unclip.stages.sampling import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from torch import Tensor

    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source
    from unclip.stages.conditioner import Condition


@dataclass(frozen=True, kw_only=True)
class Outpaint(Request):
    """A picture continued beyond its sides. Its own pixels keep their bits, alpha included; added ones are opaque."""

    kind: Literal["outpaint"] = "outpaint"
    prompt: Annotated[str | None, Param("what the whole result shows; more of the same if not given")] = None
    negative: Negative = None
    left: Annotated[int, Param("pixels to add at the left", ge=0, le=65_536)] = 0
    top: Annotated[int, Param("pixels to add at the top", ge=0, le=65_536)] = 0
    right: Annotated[int, Param("pixels to add at the right", ge=0, le=65_536)] = 0
    bottom: Annotated[int, Param("pixels to add at the bottom", ge=0, le=65_536)] = 0

    sources: ClassVar[Sources] = Sources(("picture",), 1)
    stages: ClassVar[tuple[str, ...]] = ("prior", "decoder", "upsamplers")
    composite: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise `RequestError` for a blank prompt, no side, or a value out of range."""
        super().__post_init__()
        if self.prompt is not None:
            check_prompt(self.prompt)
        if not any(self.sides.values()):
            raise RequestError("nothing is to be added: give left, top, right or bottom in pixels")

    @property
    def sides(self) -> dict[str, int]:
        """Pixels to add, by side."""
        return {"left": self.left, "top": self.top, "right": self.right, "bottom": self.bottom}

    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """Inpainting; with a prompt, what a prompt needs, else the image encoder."""
        own = ("prompt", "decoder", *prior_needs(sampling))
        if self.prompt is None:
            own = ("image_encoder", "decoder", "image_embedding")
        return (*own, "decoder", "inpainting")

    def run(self, session: "Session", sources: "Sequence[Source]") -> "Iterator[Image]":
        """One picture."""
        windows, picture = stages.windows, session.pixels(sources[0])
        pixels, hole = windows.extended(picture, **self.sides)
        added = hole.clone()
        everything = stages.extent.Extent(*hole.shape)
        # What the decoder draws at once is its own draft.
        at_once = session.draws_at_once(everything)
        tiles = [] if at_once else windows.plan_tiles(hole, min(picture.shape[-2:]))
        around, whole = windows.window_around(*reversed(everything)), session.whole_window(everything)
        rough = session.drafted_at(whole.extent)
        side = min(picture.shape[-2:])
        size = session.drawn_at(stages.extent.Extent(side, side))
        steps = session.fill_steps(rough) + len(tiles) * session.fill_steps(size, drafted=True)
        prompt = self.prompt
        negative = None if prompt is None else given_text(self.negative)
        session.warn_if_truncated(prompt, negative)
        session.begin(each=steps + (0 if prompt is None else session.prior_steps), pictures=1, batched=False)

        def finish(drawn: "PillowImage") -> "PillowImage":
            return stages.transparency.keep(drawn, sources[0].image, added, left=self.left, top=self.top)

        def draw() -> "Iterator[Image]":
            filled, unknown = pixels, hole
            if prompt is None:
                seen = windows.mirrored(picture, around, **self.sides)
                condition = stages.conditioner.Condition(z_i=session.embed_pixels(seen))
            else:
                condition = read_condition(session, prompt, negative, session.seed)
            drafted = session.fill(
                filled, unknown, whole, condition, session.derived_seed("draft"), extent=rough
            )
            filled = drafted if at_once else filled
            for index, tile in enumerate(tiles):
                square = tile.cut(stages.windows.where(unknown, drafted, filled))
                within, seed = _within(session, condition, square), session.derived_seed("tile", index)
                filled = session.fill(filled, unknown, tile, within, seed, extent=size, draft=square)
                unknown[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = False
            z_i = None if condition.z_i is None else condition.z_i[0]
            alone = replace(self, seed=session.seed, negative=negative)
            yield session.result(
                filled, alone, z_i=z_i, sources=sources, prior=prompt is not None, finish=finish
            )

        return draw()


def _within(session: "Session", condition: "Condition", square: "Tensor") -> "Condition":
    """Condition of a square of the whole: CLIP's view of its draft, where the model has an image encoder."""
    if not {"image_encoder", "image_embedding"} <= session.parts.capabilities:
        return condition
    return stages.conditioner.Condition(
        z_i=session.embed_pixels(square), negative=condition.negative, z_null=condition.z_null
    )
