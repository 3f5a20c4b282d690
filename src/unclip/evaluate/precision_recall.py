"""Precision, recall, density and coverage of generated pictures.

The support of each set is estimated by balls around its vectors, which reach to the k-th nearest other vector of the set.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class PrecisionRecall(NamedTuple):
    """Precision and recall (Kynkäänniemi et al. 2019), and the more robust density and coverage (Naeem et al. 2020).

    `precision`, `recall` and `coverage` lie in [0, 1]; `density` is 1 on average for sets of one distribution, and may
    be larger.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], *, k: int = 3, k_density: int = 5
) -> PrecisionRecall:
    """Precision and recall of two sets of feature vectors. Raises `ValueError` where a set has no `k`-th neighbours."""
    real, generated = real.double(), generated.double()
    if min(len(real), len(generated)) <= max(k, k_density):
        raise ValueError(
            f"{len(real)} real and {len(generated)} generated pictures are too few for {max(k, k_density)} neighbours"
        )
    between = torch.cdist(real, generated)
    real_radius, generated_radius = neighbour_distance(real, k), neighbour_distance(generated, k)
    inside = between <= neighbour_distance(real, k_density)[:, None]
    return PrecisionRecall(
        precision=(between <= real_radius[:, None]).any(0).double().mean().item(),
        recall=(between <= generated_radius[None, :]).any(1).double().mean().item(),
        density=inside.double().sum(0).mean().item() / k_density,
        coverage=inside.any(1).double().mean().item(),
    )


def neighbour_distance(x: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """Distance of each vector to its `k`-th nearest other vector of the set."""
    distances = torch.cdist(x, x)
    distances.fill_diagonal_(torch.inf)
    return distances.kthvalue(k, dim=1).values
