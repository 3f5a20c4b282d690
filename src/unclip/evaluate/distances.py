"""Distances between two sets of feature vectors: the Fréchet distance of fitted Gaussians, and the kernel distance MMD."""

import torch
from jaxtyping import Float
from torch import Tensor


def frechet(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets (FID's formula, Heusel et al. 2017).

    Biased upwards for few vectors: compare only figures with the same counts. Raises ValueError for fewer than two.
    """
    return frechet_gaussians(*_gaussian(a), *_gaussian(b))


def frechet_gaussians(
    mean_a: Float[Tensor, " d"],
    covariance_a: Float[Tensor, "d d"],
    mean_b: Float[Tensor, " d"],
    covariance_b: Float[Tensor, "d d"],
) -> float:
    """``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` of two Gaussians (Dowson and Landau 1982)."""
    mean_a, covariance_a = mean_a.double(), covariance_a.double()
    mean_b, covariance_b = mean_b.double(), covariance_b.double()
    # C_a C_b has the eigenvalues of the symmetric C_a^(1/2) C_b C_a^(1/2), whose square roots are safe to take.
    values, vectors = torch.linalg.eigh(covariance_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ covariance_b @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * cross
    return distance.item()


def mmd(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], bandwidth: float) -> float:
    """Squared maximum mean discrepancy with the kernel ``exp(-|x - y|^2 / (2 bandwidth^2))``.

    The unbiased estimate (Gretton et al. 2012, lemma 6): zero on average for two sets from one distribution, and
    therefore sometimes negative. Raises ValueError for fewer than two vectors.
    """
    _check(a)
    _check(b)
    if not bandwidth > 0:
        raise ValueError(f"the kernel's bandwidth is {bandwidth}; it must be above 0")
    n, m = len(a), len(b)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x.double(), y.double()).square() / (2 * bandwidth**2))

    # The unbiased estimate leaves out the diagonal, where a vector is compared with itself and the kernel is 1.
    within_a = (kernel(a, a).sum() - n) / (n * (n - 1))
    within_b = (kernel(b, b).sum() - m) / (m * (m - 1))
    return (within_a + within_b - 2 * kernel(a, b).mean()).item()


def median_distance(x: Float[Tensor, "n d"]) -> float:
    """Median distance between two different vectors of a set: the usual bandwidth for `mmd`."""
    _check(x)
    return torch.pdist(x.double()).median().item()


def _gaussian(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    _check(x)
    x = x.double()
    centred = x - x.mean(0)
    return x.mean(0), centred.T @ centred / (len(x) - 1)


def _check(x: Float[Tensor, "n d"]) -> None:
    if len(x) < 2:
        raise ValueError(f"a distance between sets needs at least 2 vectors in each, got {len(x)}")
