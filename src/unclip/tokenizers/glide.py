"""GLIDE's byte-pair encoding: GPT-2's vocabulary over text in lower case.

A caption becomes its tokens without start and end, and padding behind them. Padding is the vocabulary's last token, which no
caption holds.
"""

import json
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor


class GlideTokenizer:
    """Captions to tokens and back; `context` is the number of tokens a caption gets."""

    kind = "glide"
    frame = 0
    """Tokens around every caption."""

    def __init__(
        self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], *, context: int = 128
    ):
        """Tokenizer of GPT-2's vocabulary and merges. Raises ValueError where they do not fit together."""
        missing = [symbol for symbol in pre_tokenizers.ByteLevel.alphabet() if symbol not in vocabulary]
        if missing or sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise ValueError("the vocabulary is not GPT-2's: it lacks bytes, or its numbers have gaps")
        try:
            self.backend = Tokenizer(models.BPE(dict(vocabulary), list(merges)))
        except Exception as error:  # the library has no type of its own
            raise ValueError(f"the merges do not fit the vocabulary: {error}") from error
        if context < 1:
            raise ValueError(f"a context of {context} tokens has no room: give 1 or more")
        # GPT-2's own pattern: a space belongs to the word behind it.
        self.backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
        self.backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
        self.context, self.padding = context, len(vocabulary) - 1

    @classmethod
    def from_json(cls, text: str) -> "GlideTokenizer":
        """Read what `to_json` wrote. Raises ValueError where the text is not of that form."""
        try:
            data = json.loads(text)
            merges = [(left, right) for left, right in data["merges"]]
            return cls(data["vocabulary"], merges, context=int(data["context"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a tokenizer file of this project: {error!r}") from error

    def to_json(self) -> str:
        """Vocabulary, merges and context as JSON text."""
        model = json.loads(self.backend.to_str())["model"]
        data = {"kind": self.kind, "context": self.context, "vocabulary": model["vocab"]}
        return json.dumps(data | {"merges": model["merges"]}, ensure_ascii=False)

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return self.backend.get_vocab_size()

    def length(self, caption: str) -> int:
        """The number of tokens of `caption`; above `context`, `encode` cuts it."""
        return len(self.backend.encode(caption.lower()).ids)

    def encode(self, captions: Sequence[str]) -> Int[Tensor, "b n"]:
        """Tokens (b, context) in int64, then padding; longer captions are cut."""
        tokens = torch.full((len(captions), self.context), self.padding, dtype=torch.int64)
        for row, caption in zip(tokens, captions):
            ids = self.backend.encode(caption.lower()).ids[: self.context]
            row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, without padding."""
        return self.backend.decode([token for token in tokens if token != self.padding])
