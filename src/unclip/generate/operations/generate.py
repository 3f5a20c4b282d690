"""Text to image: P(x | y) = P(x | z_i, y) P(z_i | y), stage by stage (arXiv 2204.06125, section 2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from unclip import stages
from unclip.config import Param
from unclip.errors import RequestError
from unclip.generate.request import (
    MAX_PICTURES,
    Count,
    Negative,
    Request,
    Size,
    check_prompt,
    given_text,
    prior_needs,
)
from unclip.stages.extent import Sides
from unclip.stages.sampling import Sampling

if TYPE_CHECKING:
    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source


@dataclass(frozen=True, kw_only=True)
class Generate(Request):
    """Pictures of a caption."""

    kind: Literal["generate"] = "generate"
    prompt: Annotated[str | tuple[str, ...], Param("what to draw; with several prompts, n pictures of each")]
    negative: Negative = None
    n: Count = 1
    size: Size = None

    stages: ClassVar[tuple[str, ...]] = ("prior", "decoder", "upsamplers")

    def __post_init__(self) -> None:
        """Raise `RequestError` for an empty prompt or a value out of range."""
        super().__post_init__()
        prompts = self.prompts
        if not prompts:
            raise RequestError("the prompt is empty: say what to draw")
        for prompt in prompts:
            check_prompt(prompt)
        if self.n * len(prompts) > MAX_PICTURES:
            raise RequestError(
                f"{self.n * len(prompts)} pictures were asked for: ask for 1 to {MAX_PICTURES}"
            )

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts as a tuple."""
        return (self.prompt,) if isinstance(self.prompt, str) else self.prompt

    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """Text encoder and decoder, and what gives the image embedding."""
        return ("prompt", "decoder", *prior_needs(sampling))

    def run(self, session: "Session", sources: "Sequence[Source]") -> "Iterator[Image]":
        """Pictures in the order of the prompts."""
        size, negative = session.size(self.size), given_text(self.negative)
        prompts = [prompt for prompt in self.prompts for _ in range(self.n)]
        session.warn_if_truncated(*self.prompts, negative)
        session.begin(each=session.prior_steps + session.render_steps(size), pictures=len(prompts))
        orders = [
            replace(self, prompt=prompt, negative=negative, n=1, size=size, seed=session.seed_of(index))
            for index, prompt in enumerate(prompts)
        ]
        return _draw(session, orders, size)


def _draw(session: "Session", orders: Sequence[Generate], size: Sides) -> "Iterator[Image]":
    for batch in session.batches(len(orders)):
        yield from _draw_batch(session, [orders[index] for index in batch], size, batch.start)


def draw_together(session: "Session", requests: Sequence[Generate]) -> "list[Image]":
    """Pictures of requests for one picture each, with their seeds, computed in one batch.

    A picture equals the one that its request makes alone, to the rounding of larger batches. Raises `RequestError` for
    several pictures in one request, and for requests that cannot share a batch: of different sizes, or some with a
    negative prompt and some without.
    """
    if any(request.n != 1 or len(request.prompts) != 1 for request in requests):
        raise RequestError("requests in one batch make one picture each: set n to 1 and give one prompt")
    sizes = {session.size(request.size) for request in requests}
    if len(sizes) > 1:
        raise RequestError(
            f"requests in one batch have the sizes {', '.join(sorted(map(str, sizes)))}: give one size"
        )
    (size,) = sizes
    orders = [
        replace(
            request,
            prompt=request.prompts[0],
            negative=given_text(request.negative),
            size=size,
        )
        for request in requests
    ]
    if len({order.negative is None for order in orders}) > 1:
        raise RequestError("of requests in one batch, either all have a negative prompt or none has")
    session.begin(each=session.prior_steps + session.render_steps(size), pictures=len(orders))
    return _draw_batch(session, orders, size)


def _draw_batch(session: "Session", orders: Sequence[Generate], size: Sides, first: int = 0) -> "list[Image]":
    seeds = session.seeds([order.seed or 0 for order in orders])
    captions = session.captions([str(order.prompt) for order in orders])
    negatives = [order.negative or "" for order in orders]
    negative = session.captions(negatives) if any(negatives) else None
    z_i, z_null = session.sample_embeddings(captions, seeds, negative, first)
    condition = stages.conditioner.Condition(z_i=z_i, captions=captions, negative=negative, z_null=z_null)
    small = session.decode(condition, seeds, size=size, first=first)
    pixels = session.enlarge(small, seeds, size, captions=captions, first=first)
    return [
        session.result(
            pixels[k],
            order,
            z_i=None if z_i is None else z_i[k],
            prior=True,
            warnings=session.truncations(str(order.prompt), order.negative),
        )
        for k, order in enumerate(orders)
    ]
