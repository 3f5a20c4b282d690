"""Embeddings as short rows of codes: principal components, each quantised (arXiv 2204.06125, section 2.2)."""

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn


class EmbeddingCodes(nn.Module):
    """z_i <-> one code for each of its first principal components, in order of decreasing eigenvalue.

    `levels` holds what a code stands for, ascending, for each component; a value is coded by the nearest level. The
    levels are the means of buckets with equally many training embeddings each. Buckets of equal width would lose less
    (on the artwork set, in 64 of them, 0.08 % of the variance rather than 0.17 %; the components left out are 1 %), but
    outliers stretch them, and some stand empty. Here all codes are about equally frequent, and the same code means the
    same quantile in every component, so that a transformer can share one embedding table.
    """

    mean: Tensor
    components: Tensor
    levels: Tensor

    def __init__(self, embedding: int, dimensions: int, buckets: int):
        super().__init__()
        if not 1 <= dimensions <= embedding:
            raise ValueError(f"dimensions is {dimensions}: an embedding of {embedding} has 1 to {embedding}")
        if buckets < 2:
            raise ValueError(f"buckets is {buckets}: a code needs at least 2")
        self.register_buffer("mean", torch.zeros(embedding))
        self.register_buffer("components", torch.zeros(dimensions, embedding))
        self.register_buffer("levels", torch.zeros(dimensions, buckets))

    @torch.no_grad()
    def fit(self, embeddings: Float[Tensor, "n d"]) -> None:
        """Take mean, components and levels from the training embeddings.

        Raises ValueError for fewer embeddings than buckets.
        """
        mean, _, directions = principal_components(embeddings)
        components = directions[: len(self.components)]
        values = einsum(components, embeddings.cpu().double() - mean, "k d, n d -> k n")
        self.mean.copy_(mean)
        self.components.copy_(components)
        self.levels.copy_(quantile_levels(values, self.levels.shape[1]))

    def encode(self, embeddings: Float[Tensor, "b d"]) -> Int[Tensor, "b k"]:
        """The codes of embeddings in CLIP's own scale."""
        # One type for all of it: under autocast the product would be rounded to bfloat16.
        with torch.autocast(embeddings.device.type, enabled=False):
            values = einsum(self.components, embeddings.float() - self.mean, "k d, b d -> k b")
        return rearrange(nearest_level(self.levels, values), "k b -> b k")

    def decode(self, codes: Int[Tensor, "b k"]) -> Float[Tensor, "b d"]:
        """The embeddings that codes stand for; fewer codes than components leave the last components at their mean."""
        embeddings = self.mean.expand(len(codes), -1)
        for component, code in enumerate(codes.unbind(1)):
            embeddings = embeddings + self.step(component, code)
        return embeddings

    def step(self, component: int, code: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """What the code of one component adds to the embedding."""
        return self.levels[component, code][:, None] * self.components[component]


def principal_components(
    embeddings: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """The mean, the variances along the principal components, descending, and these as rows of length 1; float64, CPU.

    The largest entry of each component is positive, so that it is one and the same wherever it is computed.
    """
    values = embeddings.cpu().double()
    mean = values.mean(0)
    centred = values - mean
    variances, columns = torch.linalg.eigh(centred.mT @ centred / len(values))
    rows = columns.mT.flip(0)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return mean, variances.flip(0).clamp(min=0), rows * largest.sign()


def dimensions_for(embeddings: Float[Tensor, "n d"], error: float) -> int:
    """The fewest principal components that leave at most `error`, a share in (0, 1), of the embeddings' variance.

    The paper keeps 319 of 1024, "with less than 1% average mean-squared error in reconstructing the image
    representations". Raises ValueError for another share, and where all embeddings are the same.
    """
    if not 0 < error < 1:
        raise ValueError(f"reconstruction_error is {error}; it is a share between 0 and 1, such as 0.01")
    _, variances, _ = principal_components(embeddings)
    if not variances.sum() > 0:
        raise ValueError("all embeddings are the same: there are no principal components; look at the data")
    # What the first k leave, added up from the small end.
    left = variances.flip(0).cumsum(0).flip(0)[1:] / variances.sum()
    return int((left > error).sum()) + 1


def quantile_levels(values: Float[Tensor, "k n"], buckets: int) -> Float[Tensor, "k v"]:
    """For each row the means of `buckets` buckets that hold equally many of its values, ascending, in float64.

    Raises ValueError for fewer values than buckets.
    """
    count = values.shape[1]
    if count < buckets:
        raise ValueError(
            f"{count} embeddings cannot fill {buckets} buckets: lower buckets, or give more pictures"
        )
    edges = torch.arange(buckets + 1, device=values.device) * count // buckets
    sums = nn.functional.pad(values.double().sort(dim=1).values.cumsum(1), (1, 0))
    return sums[:, edges].diff(dim=1) / edges.diff()


def nearest_level(levels: Float[Tensor, "k v"], values: Float[Tensor, "k n"]) -> Int[Tensor, "k n"]:
    """The index of the level that is nearest to each value, row by row; `levels` ascend."""
    middles = (levels[:, 1:] + levels[:, :-1]) / 2
    return torch.searchsorted(middles.contiguous(), values.contiguous())
