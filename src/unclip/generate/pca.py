"""What the principal components of z_i hold (section 4, figure 7): pictures from the first of them alone."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from einops import einsum
from jaxtyping import Float
from torch import Tensor

from unclip.generate.drawing import Drawing, draw_each, steps_of
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo, recipe_of
from unclip.generate.sequence import again_in_sequence
from unclip.generate.settings import Settings, choose_seed
from unclip.generate.sources import PictureLike, embed_sources, read_source
from unclip.generate.system import System
from unclip.generate.text_to_image import MAX_PICTURES, check_batch_size, check_count, check_size
from unclip.networks.embedding_codes import principal_components


class Basis(NamedTuple):
    """The mean of embeddings and their principal components as rows, in order of decreasing variance."""

    mean: Float[Tensor, " d"]
    components: Float[Tensor, "k d"]

    def truncate(self, z_i: Float[Tensor, " d"], dimensions: int) -> Float[Tensor, " d"]:
        """z_i without all but its first components, at its length."""
        kept = self.components[:dimensions]
        part = self.mean + einsum(kept, einsum(kept, z_i - self.mean, "k d, d -> k"), "k d, k -> d")
        return part * (z_i.norm() / part.norm().clamp(min=1e-12))


def basis_of(embeddings: Float[Tensor, "n d"]) -> Basis:
    """The basis of embeddings; of n of them come n - 1 components at most. Raises `ValueError` for fewer than 2."""
    count = min(len(embeddings) - 1, embeddings.shape[1])
    if count < 1:
        raise ValueError(f"principal components need 2 pictures or more, not {len(embeddings)}")
    mean, _, components = principal_components(embeddings)
    return Basis(mean.float(), components[:count].float())


def model_basis(system: System) -> Basis:
    """The basis of the autoregressive prior, fitted on its training set. Raises `ValueError` where there is no such
    prior."""
    codes = system.prior_autoregressive.codes
    return Basis(codes.mean.float().cpu(), codes.components.float().cpu())


def pca_reconstructions(
    system: System,
    picture: PictureLike,
    *,
    dimensions: Sequence[int],
    basis: Sequence[PictureLike] | None = None,
    settings: Settings,
    seed: int | None = None,
    size: int | None = None,
    callback: Callback | None = None,
    batch_size: int | None = None,
) -> Iterator[Picture]:
    """`System.pca_reconstructions`, yielding pictures as they are finished."""
    source, given = read_source(picture), [read_source(one) for one in basis or ()]
    check_count(len(dimensions))
    if basis is not None and len(given) < 2:
        raise ValueError(f"principal components need 2 pictures or more, not {len(given)}")
    found = model_basis(system) if basis is None else basis_of(embed_sources(system, given).cpu())
    for count in dimensions:
        if not 1 <= count <= len(found.components):
            raise ValueError(
                f"dimensions is {count}: the basis has 1 to {len(found.components)}; more need more pictures"
            )
    size = check_size(system, size)
    seed = choose_seed(seed)
    together = check_batch_size(system, batch_size)
    batches = -(-len(dimensions) // together)
    reporter = Reporter(callback, batches * steps_of(system, settings, size), len(dimensions))
    z_i = embed_sources(system, [source])[0].cpu()
    drawings = []
    for count in dimensions:
        recipe = recipe_of(
            system,
            "pca",
            seed=seed,
            size=size,
            settings=settings,
            sources=[source, *given],
            dimensions=count,
            basis="model" if basis is None else "given",
        )
        drawings.append(Drawing(found.truncate(z_i, count), None, seed, recipe))
    return draw_each(system, drawings, settings, size, reporter, together=together)


def again(redo: Redo) -> Picture:
    """A picture of the first components, or a strip of several, made again from its recipe.

    Where the components were those of given pictures, `sources` are the picture and all of these.
    """
    own = redo.recipe.get("basis") == "model"
    source, *given = redo.sources([1] if own else range(3, MAX_PICTURES))
    basis = None if own else [one.image for one in given]

    def make(dimensions: Sequence[int]) -> Iterator[Picture]:
        size = redo.told("size")
        return pca_reconstructions(
            redo.system, source.image, dimensions=dimensions, basis=basis, size=size, **redo.common
        )

    return again_in_sequence(redo, make, along="dimensions")
