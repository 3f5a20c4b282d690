"""Retrieval: recall at k between pictures and captions."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unclip.data.sample import Sample


def ranks(similarity: Float[Tensor, "n m"], right: Bool[Tensor, "n m"]) -> Int[Tensor, " n"]:
    """Rank of the most similar right answer: the number of wrong answers that are at least as similar.

    Each row is a question, each column an answer; several answers may be right. Ties count against the right answer.
    Raises `ValueError` for a question without a right answer.
    """
    if not right.any(dim=1).all():
        row = int((~right.any(dim=1)).nonzero()[0])
        raise ValueError(f"question {row} has no right answer among the {similarity.shape[1]} given")
    best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return ((similarity >= best) & ~right).sum(dim=1)


def recall_at(ranks: Int[Tensor, " n"], k: int) -> float:
    """Recall at k: the share of questions whose right answer is among the first `k` answers."""
    return (ranks < k).double().mean().item()


def fitting_captions(samples: Sequence[Sample], captions: Sequence[str]) -> Bool[Tensor, "n m"]:
    """Mask of the `captions` that equal one of a drawing's own captions, ignoring case."""
    column: dict[str, list[int]] = {}
    for index, caption in enumerate(captions):
        column.setdefault(caption.lower(), []).append(index)
    right = torch.zeros(len(samples), len(captions), dtype=torch.bool)
    for row, sample in enumerate(samples):
        for caption in sample.captions:
            right[row, column.get(caption.lower(), [])] = True
    return right


def retrieval(
    image_embeddings: Float[Tensor, "n d"],
    text_embeddings: Float[Tensor, "n d"],
    right: Bool[Tensor, "n n"],
    at: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """Recall at each of `at` in both directions; row i of `right` marks the captions that fit picture i."""
    similarity = image_embeddings @ text_embeddings.T
    found = {
        "image_to_text": ranks(similarity, right),
        "text_to_image": ranks(similarity.T, right.T),
    }
    return {f"{way}_recall_{k}": recall_at(place, k) for way, place in found.items() for k in at}
