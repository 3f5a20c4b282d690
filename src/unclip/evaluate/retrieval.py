"""Retrieval: does a picture find its caption among many, and a caption its picture?"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unclip.data.sample import Sample


def ranks(similarity: Float[Tensor, "n m"], right: Bool[Tensor, "n m"]) -> Int[Tensor, " n"]:
    """How many wrong answers are at least as similar as the most similar right one: 0 is found at once.

    Each row is a question, each column an answer, and several answers may be right. An answer that ties with the right
    one counts against it. Raises ValueError for a question without a right answer.
    """
    if not right.any(dim=1).all():
        row = int((~right.any(dim=1)).nonzero()[0])
        raise ValueError(f"question {row} has no right answer among the {similarity.shape[1]} given")
    best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return ((similarity >= best) & ~right).sum(dim=1)


def recall_at(ranks: Int[Tensor, " n"], k: int) -> float:
    """The share of questions whose right answer is among the first `k` answers."""
    return (ranks < k).double().mean().item()


def fitting_captions(samples: Sequence[Sample], captions: Sequence[str]) -> Bool[Tensor, "n m"]:
    """Which of `captions` say what one of a drawing's own captions says, letter case aside."""
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
    """Recall at each of `at` in both directions; row i of `right` says which captions fit picture i."""
    similarity = image_embeddings @ text_embeddings.T
    found = {
        "image_to_text": ranks(similarity, right),
        "text_to_image": ranks(similarity.T, right.T),
    }
    return {f"{way}_recall_{k}": recall_at(place, k) for way, place in found.items() for k in at}
