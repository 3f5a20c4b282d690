"""CLIP's loss over a batch that processes hold together, in pieces, so that no table of all pairs is ever in memory.

Each process computes the rows of its own pictures and captions. Softmax needs every column of a row, so embeddings are
gathered; sigmoids are a sum over pairs, so captions travel around the ring of processes (SigLIP, arXiv 2303.15343,
section 3.3). Gradients go back to the process that an embedding came from. The result is that of one process with the
whole batch, up to the order of sums.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize
from torch.utils.checkpoint import checkpoint

from unclip.networks.clip import Clip
from unclip.train.world import Division

ROWS = 2048
"""Rows of logits that are in memory at once; the backward pass computes them again."""
AT_ONCE = 8192
"""A batch of up to so many pairs in one process is computed whole."""


class CaptionNames(NamedTuple):
    """What the captions of a batch say, as numbers: equal numbers mean the same words."""

    tokens: Int64[Tensor, " b"]
    """Of the tokens of each picture's chosen caption."""
    said: Int64[Tensor, " b"]
    """Of its text."""
    own: Int64[Tensor, "b k"]
    """Of the texts of all captions of each picture; the last ones are repeated."""

    def fits(self, captions: "CaptionNames") -> Bool[Tensor, "b c"]:
        """Which of `captions` (columns) fit which of these pictures (rows): any of its own, or one with the same tokens."""
        fits = self.tokens[:, None] == captions.tokens[None]
        for column in self.own.unbind(1):
            fits |= column[:, None] == captions.said[None]
        return fits

    def rows(self, which: slice) -> "CaptionNames":
        """Some of the pictures."""
        return CaptionNames(*(part[which] for part in self))

    def gathered(self, division: Division) -> "CaptionNames":
        """Those of all processes."""
        return CaptionNames(*(division.gather(part) for part in self.widened(division)))

    def widened(self, division: Division) -> "CaptionNames":
        """The same with as many columns of `own` in every process."""
        width = torch.full_like(self.said[:1], self.own.shape[1]).expand(len(self.said))
        missing = int(division.gather(width).max()) - self.own.shape[1]
        return self._replace(own=torch.cat([self.own, self.own[:, -1:].expand(-1, missing)], dim=1))


def names_of(texts: Sequence[str] | Sequence[bytes]) -> Int64[Tensor, " n"]:
    """A number for each text, the same in every process: 64 bits of a hash."""
    data = [text if isinstance(text, bytes) else text.lower().encode() for text in texts]
    numbers = [
        int.from_bytes(hashlib.blake2b(one, digest_size=8).digest(), "big", signed=True) for one in data
    ]
    return torch.tensor(numbers, dtype=torch.int64)


def pair_loss(
    network: Clip,
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    captions: CaptionNames,
    division: Division,
    *,
    rows: int = ROWS,
    at_once: int = AT_ONCE,
) -> Float[Tensor, ""]:
    """The loss of this process's pairs among those of all processes, a mean over its own."""
    if division.size == 1 and len(image) <= at_once:
        return network.loss(image, text, captions.fits(captions))
    image, text = (normalize(one.float(), dim=-1) for one in (image, text))
    with torch.autocast(image.device.type, enabled=False):
        scale = network.logit_scale.float().exp().clamp(max=100.0)
        if network.logit_bias is None:
            return _softmax(image, text, captions, division, scale, rows)
        return _sigmoid(image, text, captions, division, scale, network.logit_bias.float(), rows)


def _softmax(
    image: Tensor, text: Tensor, captions: CaptionNames, division: Division, scale: Tensor, rows: int
) -> Tensor:
    images, texts, everyone = division.gather(image), division.gather(text), captions.gathered(division)
    # All processes take part in the backward exchange, those without samples too.
    total = 0.0 * (images.sum() + texts.sum() + scale)
    for start in range(0, division.count, rows):
        here = slice(start, min(start + rows, division.count))
        own, first = captions.rows(here), division.first + start
        for_images = (image[here], texts, scale, own, everyone, first, False)
        for_texts = (text[here], images, scale, own, everyone, first, True)
        for given in (for_images, for_texts):
            total = total + checkpoint(_row_entropy, *given, use_reentrant=False) / 2
    return total / max(division.count, 1)


def _row_entropy(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    own: CaptionNames,
    everyone: CaptionNames,
    first: int,
    of_texts: bool,
) -> Tensor:
    """The sum of rows' cross-entropies; row i belongs to column `first + i`, and what fits it is no negative."""
    logits = scale * rows @ columns.T
    target = torch.arange(first, first + len(rows), device=rows.device)
    fits = everyone.fits(own).T if of_texts else own.fits(everyone)
    ignored = fits.scatter(1, target[:, None], False)
    return cross_entropy(logits.masked_fill(ignored, -torch.inf), target, reduction="sum")


def _sigmoid(
    image: Tensor,
    text: Tensor,
    captions: CaptionNames,
    division: Division,
    scale: Tensor,
    bias: Tensor,
    rows: int,
) -> Tensor:
    own = captions.widened(division)
    there, texts = [division.padded(part) for part in own], division.padded(text)
    # A process without samples takes part in every exchange of gradients too.
    total = 0.0 * (scale + bias + image.sum())
    for step in range(division.size):
        if step:
            texts = division.from_previous(texts, 1)
            there = [division.from_previous(part, 1) for part in there]
        count = division.counts[(division.rank - step) % division.size]
        columns = CaptionNames(*(part[:count] for part in there))
        total = total + 0.0 * texts.sum()
        for start in range(0, division.count, rows):
            here = slice(start, min(start + rows, division.count))
            first = start if step == 0 else None
            given = (image[here], texts[:count], scale, bias, own.rows(here), columns, first)
            total = total + checkpoint(_pair_entropy, *given, use_reentrant=False)
    return total / max(division.count, 1)


def _pair_entropy(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    bias: Tensor,
    own: CaptionNames,
    theirs: CaptionNames,
    first: int | None,
) -> Tensor:
    """The sum over pairs of -log sigmoid(±logit): + for row i and column `first + i`, - for all that do not fit."""
    logits = scale * rows @ columns.T + bias
    paired = torch.zeros_like(logits, dtype=torch.bool)
    if first is not None:
        paired[:, first : first + len(rows)].fill_diagonal_(True)
    signs = 2 * paired.float() - 1
    ignored = own.fits(theirs) & ~paired
    return -logsigmoid(signs * logits).masked_fill(ignored, 0.0).sum()
