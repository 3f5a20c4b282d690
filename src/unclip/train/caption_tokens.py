"""All captions of a data set as tokens on the device, so that a training step chooses among them without the host."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from unclip.data.sample import Sample
from unclip.tokenizers.clip import ClipTokenizer

_CHUNK = 50_000


class ChosenCaptions(NamedTuple):
    """One caption of each picture, and which of them say what one of another picture's own captions says."""

    tokens: Int64[Tensor, "b n"]
    number: Int64[Tensor, " b"]
    """Captions with the same tokens have the same number."""
    own: Int64[Tensor, "b k"]
    """The numbers of all captions of each picture; the last ones are repeated."""


class CaptionTokens:
    """Every distinct caption once, and for each sample the numbers of its own."""

    def __init__(self, samples: Sequence[Sample], tokenizer: ClipTokenizer, device: torch.device):
        captions = dict.fromkeys(caption for sample in samples for caption in sample.captions)
        texts = list(captions)
        rows = np.zeros((len(texts), tokenizer.context), dtype=np.int64)
        for start in range(0, len(texts), _CHUNK):
            _fill(rows[start : start + _CHUNK], texts[start : start + _CHUNK], tokenizer)
        numbers_of: dict[bytes, int] = {}
        where = {
            text: numbers_of.setdefault(row.tobytes(), len(numbers_of)) for text, row in zip(texts, rows)
        }
        distinct = np.frombuffer(b"".join(numbers_of), dtype=np.int64).reshape(-1, tokenizer.context)
        most = max(len(sample.captions) for sample in samples)
        own = np.empty((len(samples), most), dtype=np.int64)
        for row, sample in zip(own, samples):
            numbers = [where[caption] for caption in sample.captions]
            row[: len(numbers)], row[len(numbers) :] = numbers, numbers[-1]
        self.tokens = torch.from_numpy(distinct.copy()).to(device)
        self.own = torch.from_numpy(own).to(device)
        self.counts = torch.tensor([len(sample.captions) for sample in samples], device=device)

    def chosen(self, indices: Int64[Tensor, " b"], draws: Float64[Tensor, " b"] | None) -> ChosenCaptions:
        """Of each sample the caption that its draw in (0, 1) names, or else its first."""
        own = self.own[indices]
        place = torch.zeros_like(indices)
        if draws is not None:
            place = (draws.to(own.device) * self.counts[indices]).long()
        number = own.gather(1, place[:, None])[:, 0]
        return ChosenCaptions(self.tokens[number], number, own)


def _fill(rows: Int64[np.ndarray, "m n"], texts: list[str], tokenizer: ClipTokenizer) -> None:
    """Each text's tokens as `ClipTokenizer.encode` gives them."""
    for row, encoding in zip(rows, tokenizer.backend.encode_batch(texts, add_special_tokens=False)):
        ids = [tokenizer.start, *encoding.ids[: tokenizer.context - 2], tokenizer.end]
        row[: len(ids)] = ids
