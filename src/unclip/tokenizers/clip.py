"""Byte-pair encoding in CLIP's form, over the `tokenizers` library.

Text is normalised (NFC, white space collapsed, lower case), split by CLIP's pattern, mapped to printable bytes and
merged; the last piece of a word ends in `</w>`. A caption becomes [start, ..., end, 0, 0, ...] of `context` tokens.

`<|startoftext|>` and `<|endoftext|>` written in a caption are the tokens start and end, as in transformers' CLIPTokenizer:
CLIP reads a caption's embedding at the first end, so that what follows a written one has no part in it. Only these
spellings count; in upper case, or with a space inside, they are letters.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Int
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

START, END = "<|startoftext|>", "<|endoftext|>"
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Captions to tokens and back; `context` is the number of tokens a caption gets."""

    frame = 2
    """Tokens around every caption: start and end."""

    def __init__(self, backend: Tokenizer, context: int):
        start, end = backend.token_to_id(START), backend.token_to_id(END)
        if start is None or end is None:
            raise ValueError(f"the vocabulary lacks {START} or {END}; it is not a CLIP tokenizer")
        if context < 2:
            raise ValueError(f"a context of {context} tokens has no room for start and end: give 2 or more")
        self.backend, self.context, self.start, self.end = backend, context, start, end

    @classmethod
    def train(cls, captions: Iterable[str], *, vocabulary: int, context: int) -> "ClipTokenizer":
        """Learn the merges from `captions`; the vocabulary holds the 2 x 256 byte symbols, merges, start and end.

        The same captions, in any order, give the same tokenizer. Few captions give a smaller vocabulary than asked
        for. Raises ValueError for one with no room for the symbols.
        """
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        last = [symbol + "</w>" for symbol in alphabet]
        symbols = alphabet + last
        if vocabulary < len(symbols) + 2:
            raise ValueError(
                f"a vocabulary of {vocabulary} is too small: it needs {len(symbols) + 2} or more"
            )
        backend = _backend(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary - 2,
            initial_alphabet=alphabet,
            # The trainer numbers what it does not know in the order of a randomly seeded hash table, and these numbers
            # decide between pairs that are equally frequent. Known beforehand, they give the same merges in every run.
            special_tokens=list[str | AddedToken](last),
            end_of_word_suffix="</w>",
            show_progress=False,
        )
        backend.train_from_iterator(captions, trainer)
        learned = json.loads(backend.to_str())["model"]
        merges = [tuple(merge) for merge in learned["merges"]]
        pieces = dict.fromkeys(symbols + [left + right for left, right in merges] + [START, END])
        return cls.from_merges({piece: index for index, piece in enumerate(pieces)}, merges, context=context)

    @classmethod
    def from_merges(
        cls, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], *, context: int = 77
    ) -> "ClipTokenizer":
        """The tokenizer of CLIP's `vocab.json` and `merges.txt`. Raises ValueError where they do not fit together."""
        try:
            model = models.BPE(dict(vocabulary), list(merges), unk_token=END, end_of_word_suffix="</w>")
        except Exception as error:  # the library has no type of its own
            raise ValueError(f"the merges do not fit the vocabulary: {error}") from error
        backend = _backend(model)
        # They are found before the text is normalised.
        backend.add_special_tokens(
            [AddedToken(name, special=True, normalized=False) for name in (START, END) if name in vocabulary]
        )
        return cls(backend, context)

    @classmethod
    def from_json(cls, text: str) -> "ClipTokenizer":
        """Read what `to_json` wrote. Raises ValueError where the text is not of that form."""
        try:
            data = json.loads(text)
            merges = [(left, right) for left, right in data["merges"]]
            return cls.from_merges(data["vocabulary"], merges, context=int(data["context"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a tokenizer file of this project: {error!r}") from error

    def to_json(self) -> str:
        """Vocabulary, merges and context as JSON text."""
        model = json.loads(self.backend.to_str())["model"]
        vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
        return json.dumps(
            {"context": self.context, "vocabulary": vocabulary, "merges": model["merges"]}, ensure_ascii=False
        )

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return self.backend.get_vocab_size()

    def length(self, caption: str) -> int:
        """The number of tokens of `caption` with start and end; above `context`, `encode` cuts the caption."""
        return len(self.backend.encode(caption, add_special_tokens=False).ids) + 2

    def encode(self, captions: Sequence[str]) -> Int[Tensor, "b n"]:
        """Tokens (b, context) in int64, start ... end, then zeros; longer captions are cut and keep their end."""
        tokens = torch.zeros(len(captions), self.context, dtype=torch.int64)
        for row, encoding in zip(tokens, self.backend.encode_batch(list(captions), add_special_tokens=False)):
            ids = [self.start, *encoding.ids[: self.context - 2], self.end]
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens` up to the first end; start is left out."""
        ids = list(tokens)
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        return self.backend.decode([token for token in ids if token != self.start]).strip()


def _backend(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [decoders.ByteLevel(), decoders.Replace("</w>", " ")]
    )
    return tokenizer
