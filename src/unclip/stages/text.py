"""Captions as the stages read them: tokens, and the encoding of CLIP's text tower."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unclip.networks.clip import TextEncoding
from unclip.tokenizers.reading import CaptionTokenizer


class Captions(NamedTuple):
    """A batch of captions: tokens and text encodings."""

    tokens: Int[Tensor, "b n"]
    encoding: TextEncoding
    """By CLIP, whose embeddings the prior follows; by the decoder's own tower in models without a CLIP that reads text."""
    own: TextEncoding | None = None
    """By the decoder's own text tower (the part `text`), in families that have one."""

    @property
    def states(self) -> Float[Tensor, "b n w"]:
        """States that the decoder reads: those of its own tower, or CLIP's."""
        return (self.encoding if self.own is None else self.own).states

    def take(self, rows: Sequence[int]) -> "Captions":
        """Captions of the given rows."""
        index = torch.tensor(rows, device=self.tokens.device)
        own = None if self.own is None else TextEncoding(*(field[index] for field in self.own))
        return Captions(self.tokens[index], TextEncoding(*(field[index] for field in self.encoding)), own)

    def join(self, other: "Captions") -> "Captions":
        """These captions and then another batch of them."""

        def both(mine: TextEncoding, given: TextEncoding) -> TextEncoding:
            return TextEncoding(*(torch.cat(pair) for pair in zip(mine, given)))

        own = None if self.own is None or other.own is None else both(self.own, other.own)
        return Captions(torch.cat([self.tokens, other.tokens]), both(self.encoding, other.encoding), own)


@runtime_checkable
class Tower(Protocol):
    """A text tower: `Clip`, `TextEncoder`, or another network with this method."""

    def encode_text(self, tokens: Int[Tensor, "b n"]) -> TextEncoding:
        """Embeddings, states and mask of tokens."""
        ...


def read_captions(
    tower: Tower, tokenizer: CaptionTokenizer, prompts: Sequence[str], device: torch.device, pad: int = 0
) -> Captions:
    """Tokens and text encodings of prompts; a prompt longer than the context is truncated.

    Each distinct prompt is encoded once and alone, so that its encoding does not depend on its batch, even by rounding.
    """
    unique = list(dict.fromkeys(prompts))
    tokens = tokenizer.encode(unique)
    if pad:
        for row, prompt in zip(tokens, unique):
            row[tokenizer.length(prompt) :] = pad
    tokens = tokens.to(device)
    encodings = [tower.encode_text(row[None]) for row in tokens]
    read = Captions(tokens, TextEncoding(*(torch.cat(fields) for fields in zip(*encodings))))
    return read if unique == list(prompts) else read.take([unique.index(prompt) for prompt in prompts])


def truncation_warning(tokenizer: CaptionTokenizer, prompt: str, context: int | None = None) -> str | None:
    """Warning for a prompt longer than the context, the tokenizer's unless given; None for one that fits."""
    context = tokenizer.context if context is None else min(context, tokenizer.context)
    if (length := tokenizer.length(prompt)) <= context:
        return None
    return (
        f"the prompt {prompt[:40]!r}... has {length - tokenizer.frame} tokens, the model reads the first "
        f"{context - tokenizer.frame}"
    )
