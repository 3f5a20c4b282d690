"""Captions as the stages read them: tokens, and the encoding of CLIP's text tower."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from unclip.networks.clip import Clip, TextEncoding
from unclip.tokenizers.reading import CaptionTokenizer


class Captions(NamedTuple):
    """A batch of captions: tokens and text encodings."""

    tokens: Int[Tensor, "b n"]
    encoding: TextEncoding

    def take(self, rows: Sequence[int]) -> "Captions":
        """Captions of the given rows."""
        index = torch.tensor(rows, device=self.tokens.device)
        return Captions(self.tokens[index], TextEncoding(*(field[index] for field in self.encoding)))


def read_captions(
    clip: Clip, tokenizer: CaptionTokenizer, prompts: Sequence[str], device: torch.device
) -> Captions:
    """Tokens and text encodings of prompts; a prompt longer than the context is truncated.

    Each distinct prompt is encoded once and alone, so that its encoding does not depend on its batch, even by rounding.
    """
    unique = list(dict.fromkeys(prompts))
    tokens = tokenizer.encode(unique).to(device)
    encodings = [clip.encode_text(row[None]) for row in tokens]
    read = Captions(tokens, TextEncoding(*(torch.cat(fields) for fields in zip(*encodings))))
    return read if unique == list(prompts) else read.take([unique.index(prompt) for prompt in prompts])


def truncation_warning(tokenizer: CaptionTokenizer, prompt: str) -> str | None:
    """Warning for a prompt longer than the model's context; None for one that fits."""
    if (length := tokenizer.length(prompt)) <= tokenizer.context:
        return None
    return (
        f"the prompt {prompt[:40]!r}... has {length - tokenizer.frame} tokens, the model reads the first "
        f"{tokenizer.context - tokenizer.frame}"
    )
