"""XLM-R's tokenizer: the pieces of a hundred languages (SentencePiece, a unigram model), over the `tokenizers` library.

A caption becomes [<s>, ..., </s>, padding, ...] of `context` tokens.
"""

import json
from collections.abc import Sequence

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

PADDING = "<pad>"


class MultilingualTokenizer:
    """Captions to tokens; `context` is the number of tokens a caption gets."""

    kind = "multilingual"

    def __init__(self, backend: Tokenizer, *, context: int = 77):
        """Tokenizer of a `tokenizer.json`. Raises ValueError for one that has no padding, or writes no start and end."""
        padding = backend.token_to_id(PADDING)
        self.frame = len(backend.encode("").ids)
        """Tokens around every caption."""
        if padding is None or self.frame != 2:
            raise ValueError(f"it has no {PADDING}, or writes no start and end around a caption")
        if context < self.frame:
            raise ValueError(f"a context of {context} tokens has no room for start and end: give 2 or more")
        backend.no_padding()
        backend.no_truncation()
        self.backend, self.context, self.padding = backend, context, padding

    @classmethod
    def from_backend(cls, text: str, *, context: int = 77) -> "MultilingualTokenizer":
        """Tokenizer from the text of a `tokenizer.json`. Raises ValueError where it is not XLM-R's."""
        try:
            backend = Tokenizer.from_str(text)
        except Exception as error:  # the library has no type of its own
            raise ValueError(f"not a tokenizer.json: {error}") from error
        return cls(backend, context=context)

    @classmethod
    def from_json(cls, text: str) -> "MultilingualTokenizer":
        """Read what `to_json` wrote. Raises ValueError where the text is not of that form."""
        try:
            data = json.loads(text)
            return cls.from_backend(json.dumps(data["backend"]), context=int(data["context"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a tokenizer file of this project: {error!r}") from error

    def to_json(self) -> str:
        """Pieces, rules and context as JSON text."""
        backend = json.loads(self.backend.to_str())
        return json.dumps(
            {"kind": self.kind, "context": self.context, "backend": backend}, ensure_ascii=False
        )

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return self.backend.get_vocab_size()

    def length(self, caption: str) -> int:
        """The number of tokens of `caption` with start and end; above `context`, `encode` cuts the caption."""
        return len(self.backend.encode(caption).ids)

    def encode(self, captions: Sequence[str]) -> Int[Tensor, "b n"]:
        """Tokens (b, context) in int64, start ... end, then padding; longer captions are cut and keep their end."""
        tokens = torch.full((len(captions), self.context), self.padding, dtype=torch.int64)
        for row, caption in zip(tokens, captions):
            ids = self.backend.encode(caption).ids
            if len(ids) > self.context:
                ids = [*ids[: self.context - 1], ids[-1]]
            row[: len(ids)] = torch.tensor(ids)
        return tokens
