"""The tokenizer of a model folder, of whatever kind."""

import json
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from unclip.tokenizers.clip import ClipTokenizer
from unclip.tokenizers.glide import GlideTokenizer
from unclip.tokenizers.multilingual import MultilingualTokenizer


@runtime_checkable
class CaptionTokenizer(Protocol):
    """Captions to tokens; `context` is the number of tokens a caption gets, `frame` those written around it."""

    context: int
    frame: int

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        ...

    def length(self, caption: str) -> int:
        """The number of tokens of `caption`, start and end included; above `context`, `encode` cuts the caption."""
        ...

    def encode(self, captions: Sequence[str]) -> Int[Tensor, "b n"]:
        """Tokens (b, context) in int64."""
        ...

    def to_json(self) -> str:
        """JSON text that `read_tokenizer_json` reads."""
        ...


_KINDS = {one.kind: one for one in (GlideTokenizer, MultilingualTokenizer)}


def read_tokenizer_json(text: str) -> CaptionTokenizer:
    """Tokenizer from the JSON text of its `to_json`. Raises ValueError where the text is not of that form."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not a tokenizer file of this project: {error!r}") from error
    kind = data.get("kind") if isinstance(data, dict) else None
    return _KINDS[kind].from_json(text) if kind in _KINDS else ClipTokenizer.from_json(text)
