"""Memorisation: distances of generated pictures to the nearest training pictures, against those of held-out pictures."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Distances of generated and of held-out pictures to their nearest training pictures.

    `closer` is the share of generated pictures nearer than 95% of the held-out ones: 0.05 without memorisation.
    `copies` and `held_out_copies` are the shares whose nearest training picture is three times nearer than the second
    (Carlini et al. 2023 call such pictures extracted).
    """

    median: float
    held_out_median: float
    closer: float
    copies: float
    held_out_copies: float


def memorisation(
    generated: tuple[Float[Tensor, " n"], Float[Tensor, " n"]],
    held_out: tuple[Float[Tensor, " m"], Float[Tensor, " m"]],
) -> Memorisation:
    """Memorisation from the distances of `nearest_two` for both sets. Raises `ValueError` where one is empty."""
    if not len(generated[0]) or not len(held_out[0]):
        raise ValueError("memorisation needs generated and held-out pictures, and one set is empty")
    return Memorisation(
        median=generated[0].median().item(),
        held_out_median=held_out[0].median().item(),
        closer=(generated[0] < held_out[0].double().quantile(0.05)).double().mean().item(),
        copies=_copies(*generated),
        held_out_copies=_copies(*held_out),
    )


def nearest_two(
    queries: Float[Tensor, "n d"], training: Iterable[Float[Tensor, "_ d"]]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Distances of each query to its nearest and second nearest training vector; training vectors come in chunks.

    Raises `ValueError` for fewer than two training vectors.
    """
    best = torch.full((len(queries), 2), torch.inf, dtype=torch.float64)
    for chunk in training:
        candidates = chunk[_squares(queries, chunk).topk(min(2, len(chunk)), dim=1, largest=False).indices]
        near = torch.linalg.vector_norm(queries[:, None].double() - candidates.double(), dim=-1)
        best = torch.cat([best, near], dim=1).topk(2, dim=1, largest=False).values
    if len(queries) and torch.isinf(best).any():
        raise ValueError("memorisation needs at least 2 training pictures")
    return best[:, 0], best[:, 1]


def _squares(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    # Squared distances up to a constant per row, by one matrix product: enough to find the nearest. Those are measured
    # exactly afterwards, as the small distance of a copy would be lost in the rounding of this difference.
    return b.square().sum(1)[None] - 2 * a @ b.T


def _copies(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float:
    return (first < second / 3).double().mean().item()
