"""Captions followed: the share of pictures whose own caption, among others, a judge finds most similar."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.evaluate.features import Encoder
from unclip.evaluate.retrieval import ranks, recall_at


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Share of pictures whose caption was picked, and the same for real drawings, which is the judge's ceiling.

    `of_real` is the ratio of the two, None where the second is 0. `error` is the share's standard error over captions;
    `chance` is the expected share of a random choice. `similarity` is the mean cosine between a picture and its caption,
    the CLIP score before any scaling.
    """

    count: int
    share: float
    error: float
    real_share: float
    of_real: float | None
    chance: float
    similarity: float
    real_similarity: float


def captions_followed(
    judge: Encoder,
    generated: Float[Tensor, "n d"],
    real: Float[Tensor, "n d"],
    options: Sequence[Sequence[str]],
) -> Followed:
    """Captions followed by embedded pictures, row i among `options[i]`, whose first caption is the right one."""
    texts = list(dict.fromkeys(text for row in options for text in row))
    place = {text: index for index, text in enumerate(texts)}
    embeddings = judge.captions(texts)
    vectors = [embeddings[[place[text] for text in row]] for row in options]
    picked, real_picked = _picked(generated, vectors), _picked(real, vectors)
    count, share, real_share = len(options), picked.mean().item(), real_picked.mean().item()
    right = torch.stack([row[0] for row in vectors])
    return Followed(
        count=count,
        share=share,
        error=math.sqrt(share * (1 - share) / count),
        real_share=real_share,
        of_real=share / real_share if real_share else None,
        chance=sum(1 / len(row) for row in options) / count,
        similarity=(generated * right).sum(1).mean().item(),
        real_similarity=(real * right).sum(1).mean().item(),
    )


def _picked(pictures: Float[Tensor, "n d"], vectors: Sequence[Float[Tensor, "_ d"]]) -> Float[Tensor, " n"]:
    """1 where the first of a picture's captions is strictly the nearest, else 0."""
    found = []
    for picture, options in zip(pictures, vectors, strict=True):
        right = torch.zeros(1, len(options), dtype=torch.bool)
        right[0, 0] = True
        found.append(recall_at(ranks(picture[None] @ options.T, right), 1))
    return torch.tensor(found, dtype=torch.float64)
