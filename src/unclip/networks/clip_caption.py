"""Karlo's caption branch: CLIP's own text tower reads the caption for the decoder (https://github.com/kakaobrain/karlo).

GLIDE trains a text transformer with the decoder. Karlo keeps CLIP's: the tower's states, projected and normalised, are
context tokens, and its embedding joins the vector that is added to the time embedding. A dropped caption is the empty one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unclip.networks.clip import TextConfig, TextTower


class CaptionContext(NamedTuple):
    """What a caption gives a decoder's net."""

    vector: Float[Tensor, "b e"]
    tokens: Float[Tensor, "b n f"]
    mask: Bool[Tensor, "b n"]


class ClipCaption(nn.Module):
    """CLIP's text tower and the projections of what it says; `start` is the token that captions begin with."""

    def __init__(
        self, text: TextConfig, start: int, embedding: int, *, context_width: int, vector_width: int
    ):
        super().__init__()
        self.config, self.start = text, start
        self.tower = TextTower(text, embedding)
        self.states = nn.Linear(text.width, context_width)
        self.norm = nn.LayerNorm(context_width)
        self.vector = nn.Linear(embedding, vector_width)

    def forward(self, tokens: Int[Tensor, "b n"], keep: Bool[Tensor, " b"]) -> CaptionContext:
        """Tokens of the tower's context; `keep` is False for captions to be dropped."""
        empty = torch.zeros_like(tokens[:1])
        empty[0, 0], empty[0, 1] = self.start, self.config.end
        text = self.tower(torch.where(keep[:, None], tokens, empty))
        return CaptionContext(self.vector(text.embedding), self.norm(self.states(text.states)), text.mask)
