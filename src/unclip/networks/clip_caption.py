"""Karlo's caption branch: projections of CLIP's text encoding for the decoder (https://github.com/kakaobrain/karlo).

GLIDE trains a text transformer with the decoder. Karlo uses CLIP's: its states, projected and normalised, are context
tokens, and its embedding is added to the time embedding. A dropped caption is the empty one. The text tower itself
belongs to CLIP, which the prior reads too: it is loaded once and run once per caption.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unclip.networks.clip import TextEncoding


class CaptionContext(NamedTuple):
    """What a caption adds to a decoder's context."""

    vector: Float[Tensor, "b e"]
    tokens: Float[Tensor, "b n f"]
    mask: Bool[Tensor, "b n"]


class ClipCaption(nn.Module):
    """Projections of a text encoding: states to context tokens, embedding to the vector beside the time embedding."""

    def __init__(self, width: int, embedding: int, *, context_width: int, vector_width: int):
        super().__init__()
        self.states = nn.Linear(width, context_width)
        self.norm = nn.LayerNorm(context_width)
        self.vector = nn.Linear(embedding, vector_width)

    def forward(self, text: TextEncoding, keep: Bool[Tensor, " b"], empty: TextEncoding) -> CaptionContext:
        """Context of captions; where `keep` is False, of the empty caption, which has one row."""
        embedding = torch.where(keep[:, None], text.embedding, empty.embedding)
        states = torch.where(keep[:, None, None], text.states, empty.states)
        mask = torch.where(keep[:, None], text.mask, empty.mask)
        return CaptionContext(self.vector(embedding), self.norm(self.states(states)), mask)
