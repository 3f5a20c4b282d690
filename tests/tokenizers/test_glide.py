"""GLIDE's tokenizer against byte-pair encoding as it is defined: the pair that was learned first is merged first."""

import itertools
import json
import re

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from unclip.tokenizers.glide import GlideTokenizer
from unclip.tokenizers.reading import read_tokenizer_json

TEXTS = [
    "A red car, a red cart; the CAT's cats don't carry 1234 cards.",
    "  two  spaces\nand a line ",
    "Ein süßes Kätzchen — 猫",
    "",
]
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


@pytest.fixture(scope="module")
def learned() -> tuple[dict[str, int], list[tuple[str, str]]]:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([text.lower() for text in TEXTS] * 3, trainer)
    model = json.loads(backend.to_str())["model"]
    names = model["vocab"] | {"<|endoftext|>": len(model["vocab"])}
    return names, [(left, right) for left, right in model["merges"]]


@pytest.fixture(scope="module")
def tokenizer(learned) -> GlideTokenizer:
    return GlideTokenizer(*learned, context=90)


def byte_names() -> dict[int, str]:
    """GPT-2's printable stand-in of each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + index) for index, byte in enumerate(rest)
    }


def by_definition(text: str, names: dict[str, int], merges: list[tuple[str, str]]) -> list[int]:
    rank, symbols, tokens = {pair: index for index, pair in enumerate(merges)}, byte_names(), []
    for word in WORDS.findall(text.lower()):
        pieces = [symbols[byte] for byte in word.encode()]
        while True:
            pairs = [(rank[pair], at) for at, pair in enumerate(itertools.pairwise(pieces)) if pair in rank]
            if not pairs:
                break
            _, at = min(pairs)
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        tokens += [names[piece] for piece in pieces]
    return tokens


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_the_definition(tokenizer, learned, text):
    expected = by_definition(text, *learned)
    (row,) = tokenizer.encode([text]).tolist()
    assert row == expected + [tokenizer.padding] * (90 - len(expected))
    assert tokenizer.length(text) == len(expected)
    assert tokenizer.decode(row) == text.lower()


def test_a_long_caption_is_cut(learned):
    short = GlideTokenizer(*learned, context=5)
    whole = by_definition(TEXTS[0], *learned)
    assert short.encode([TEXTS[0]]).tolist() == [whole[:5]]
    assert short.length(TEXTS[0]) == len(whole) > 5


def test_no_caption_holds_padding(tokenizer):
    """As in GLIDE's own tokenizer, the name of the last token is text like other text."""
    assert tokenizer.padding == tokenizer.vocabulary - 1
    assert tokenizer.padding not in tokenizer.encode(["a <|endoftext|> b"])[0, : tokenizer.length("a <|")]
    assert tokenizer.decode(tokenizer.encode(["a <|endoftext|> b"])[0].tolist()) == "a <|endoftext|> b"


def test_stored_and_read(tokenizer):
    again = read_tokenizer_json(tokenizer.to_json())
    assert isinstance(again, GlideTokenizer)
    assert again.to_json() == tokenizer.to_json()
    assert again.encode(TEXTS).equal(tokenizer.encode(TEXTS))


def test_what_is_no_tokenizer(learned):
    names, merges = learned
    with pytest.raises(ValueError, match="not GPT-2's"):
        GlideTokenizer({"a": 0, "b": 1}, [])
    with pytest.raises(ValueError, match="merges do not fit"):
        GlideTokenizer(names, [*merges, ("zz", "qq")])
    with pytest.raises(ValueError, match="not a tokenizer file"):
        read_tokenizer_json('{"kind": "glide"}')
    with pytest.raises(ValueError, match="not a tokenizer file"):
        read_tokenizer_json("[]")
