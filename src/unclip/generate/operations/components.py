"""Pictures of the first principal components of z_i (arXiv 2204.06125, section 4, figure 7)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from unclip.config import Param
from unclip.errors import RequestError
from unclip.generate.drawing import Drawing
from unclip.generate.request import MAX_PICTURES, Request, Size, Sources
from unclip.stages.sampling import Sampling

if TYPE_CHECKING:
    from unclip.generate.image import Image
    from unclip.generate.session import Session
    from unclip.generate.sources import Source


@dataclass(frozen=True, kw_only=True)
class Components(Request):
    """A picture decoded from the first components of its embedding, once per number of dimensions, from one noise."""

    kind: Literal["components"] = "components"
    dimensions: Annotated[
        tuple[int, ...], Param("numbers of principal components to keep", ge=1, le=65_536, metavar="N,N,...")
    ]
    basis: Annotated[
        Literal["model", "given"],
        Param("whose components: those of the autoregressive prior, or of the further pictures given"),
    ] = "model"
    size: Size = None

    sources: ClassVar[Sources] = Sources(("picture", "basis"), 1, repeated=True)

    def __post_init__(self) -> None:
        """Raise `RequestError` for no numbers of components, or too many."""
        super().__post_init__()
        if not 1 <= len(self.dimensions) <= MAX_PICTURES:
            raise RequestError(f"dimensions has {len(self.dimensions)} values: give 1 to {MAX_PICTURES}")

    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """Image encoder and decoder; for the model's basis, the autoregressive prior."""
        return (
            "image_encoder",
            "decoder",
            "image_embedding",
            *(("prior_autoregressive",) if self.basis == "model" else ()),
        )

    def run(self, session: "Session", sources: "Sequence[Source]") -> "Iterator[Image]":
        """One picture per number of components."""
        source, *others = sources
        if self.basis == "model" and others:
            raise RequestError("pictures for a basis were given: set basis to 'given', or leave them out")
        if self.basis == "given" and len(others) < 2:
            raise RequestError(f"principal components need 2 pictures or more, not {len(others)}")
        size = session.size(self.size)
        session.begin(each=session.render_steps(size), pictures=len(self.dimensions))
        basis = session.basis(others)
        for count in self.dimensions:
            if count > len(basis.components):
                raise RequestError(
                    f"dimensions is {count}: the basis has 1 to {len(basis.components)}; more need more pictures"
                )
        z_i = session.embed_images([source])[0].cpu()
        drawings = [
            Drawing(
                replace(self, dimensions=(count,), size=size, seed=session.seed), basis.truncate(z_i, count)
            )
            for count in self.dimensions
        ]
        return session.draw(drawings, size, sources=sources)
