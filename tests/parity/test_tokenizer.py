"""The tokenizer against transformers' CLIPTokenizer with the same vocabulary and merges, laid out as OpenAI's."""

import random

import pytest
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from unclip.tokenizers.clip import END, START, ClipTokenizer

CONTEXT = 16
MERGES = [
    *[("t", "h"), ("th", "e</w>"), ("c", "a"), ("ca", "t</w>"), ("a", "t</w>"), ("i", "n"), ("in", "g</w>")],
    *[
        ("r", "e"),
        ("re", "d</w>"),
        ("!", "!"),
        ("!", "!</w>"),
        ("!!", "!</w>"),
        ("Ã", "©</w>"),
        ("'", "s</w>"),
    ],
]
TEXTS = [
    "a cat",
    "A Red CAT",
    "a cat!",
    "!",
    "!!! !! !",
    "it's the cat's, isn't it? we'll, I'm, you've, they're, he'd",
    "'stop' ''s 'S",
    "1984 was 3.14 or 1,000",
    "x² ½ Ⅻ ٣",
    "  tabs\tand\nlines \u00a0\u2003 end ",
    "caf\u00e9 cafe\u0301 \ufb01sh \u212b",
    "ÀÉÎ İI ẞß ΣΑΣ",
    "日本語 русский עברית ไทย",
    "🐈‍⬛👩🏽‍🚀🇫🇷",
    "a_b-c/d@e.f (g) [h] {i} #j $k %l ^m &n *o",
    "\x00\x07\u200b\ufeff\ufffd",
    "<|start|> <endoftext>",
    "a <|endoftext|> b",
    "<|endoftext|>",
    "a<|startoftext|>the<|endoftext|>cat!",
    "  <|startoftext|><|endoftext|>  ",
    "A <|ENDOFTEXT|> and <|endof text|>",
    "<|endoftext|>" * 20,
    "",
    " ",
    "the " * 40,
    "thethethe" * 20,
]


def layout() -> dict[str, int]:
    """256 symbols in the order of OpenAI's byte table ("!" is 0), the same with an end mark, merges, specials."""
    symbols = list(bytes_to_unicode().values())
    pieces = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *map("".join, MERGES), START, END]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


@pytest.fixture(scope="module")
def both() -> tuple[ClipTokenizer, CLIPTokenizer]:
    return (
        ClipTokenizer.from_merges(layout(), MERGES, context=CONTEXT),
        CLIPTokenizer(vocab=layout(), merges=MERGES),
    )


def theirs(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    return tokenizer(text, truncation=True, max_length=CONTEXT)["input_ids"]


def random_texts() -> list[str]:
    draw = random.Random(0)
    letters = "the cat red ing!'sS1é\u0301\t.,-İßΣ猫🐈\u200d"
    known = ["".join(draw.choices(letters, k=draw.randrange(30))) for _ in range(150)]
    planes = [*range(0x20, 0xD800), *range(0xE000, 0x20000)]
    return known + ["".join(map(chr, draw.choices(planes, k=draw.randrange(12)))) for _ in range(150)]


@pytest.mark.parametrize("texts", [TEXTS, random_texts()], ids=["chosen", "random"])
def test_tokens_are_equal(both, texts):
    ours, other = both
    for text, tokens in zip(texts, ours.encode(texts).tolist()):
        expected = theirs(other, text)
        assert tokens == expected + [0] * (CONTEXT - len(expected)), text


def test_lengths_before_cutting_are_equal(both):
    ours, other = both
    assert [ours.length(text) for text in TEXTS] == [len(other(text)["input_ids"]) for text in TEXTS]


def test_decoding_is_equal(both):
    ours, other = both
    # Ours ends where CLIP does, at the first end.
    for text in (text for text in TEXTS if END not in text):
        tokens = theirs(other, text)
        assert ours.decode(tokens) == other.decode(tokens, skip_special_tokens=True)


def test_an_exclamation_mark_is_itself_and_no_padding(both):
    """Karlo's folder pads with "!", and reading its tokenizer config by the letter turns every "!" into token 0."""
    ours, _ = both
    start, mark, end = ours.start, layout()["!</w>"], ours.end
    assert mark != 0
    assert ours.encode(["!"])[0, :4].tolist() == [start, mark, end, 0]
    assert ours.encode(["!!!"])[0, :4].tolist() == [start, layout()["!!!</w>"], end, 0]
    assert ours.decode([start, mark, end, 0, 0]) == "!"


def test_the_comparison_can_fail(both):
    """Without the merges the tokens differ."""
    _, other = both
    assert ClipTokenizer.from_merges(layout(), [], context=CONTEXT).encode(["the cat"]).tolist() != [
        theirs(other, "the cat")
    ]
