"""The tokenizer: its form, its training, its file."""

import json

import pytest
import torch

from unclip.tokenizers.clip import END, START, ClipTokenizer

CAPTIONS = ["a red cat", "a red car", "a blue cat, flat", "a blue star"]


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer.train(CAPTIONS, vocabulary=526, context=8)


def test_training_merges_frequent_pairs_and_breaks_ties_the_same_way_in_every_run(tokenizer):
    """Golden. The pairs after the second are tied; a randomly seeded hash table must not choose between them."""
    assert [" ".join(merge) for merge in json.loads(tokenizer.to_json())["merges"]] == [
        *("a t</w>", "a r</w>", "b l", "c at</w>", "e d</w>", "r ed</w>", "u e</w>", "bl ue</w>"),
        *("c ar</w>", "f l", "s t", "fl at</w>"),
    ]
    assert tokenizer.encode(["A red  cat!", "blue tar"]).tolist() == [
        [524, 320, 517, 515, 256, 525, 0, 0],
        [524, 519, 83, 513, 525, 0, 0, 0],
    ]


def test_training_does_not_depend_on_the_order_of_captions(tokenizer):
    for captions in (CAPTIONS[::-1], iter(CAPTIONS), CAPTIONS * 2):
        again = ClipTokenizer.train(captions, vocabulary=526, context=8)
        assert again.to_json() == tokenizer.to_json()


def test_the_vocabulary_is_what_was_asked_for_or_all_there_is(tokenizer):
    assert tokenizer.vocabulary == 526
    assert (tokenizer.start, tokenizer.end) == (524, 525)
    everything = ClipTokenizer.train(CAPTIONS, vocabulary=10_000, context=8)
    assert 526 < everything.vocabulary < 560
    # Each word of the captions is one token then.
    assert [everything.length(caption) for caption in CAPTIONS] == [5, 5, 7, 5]
    bytes_only = ClipTokenizer.train(CAPTIONS, vocabulary=514, context=8)
    assert bytes_only.vocabulary == 514
    assert bytes_only.length("a red cat") == 2 + 1 + 3 + 3
    with pytest.raises(ValueError, match="vocabulary of 513 is too small: it needs 514 or more"):
        ClipTokenizer.train(CAPTIONS, vocabulary=513, context=8)


def test_symbols_come_first_and_the_last_of_a_word_is_marked(tokenizer):
    vocabulary = json.loads(tokenizer.to_json())["vocabulary"]
    assert list(vocabulary.values()) == list(range(526))
    pieces = list(vocabulary)
    assert pieces[256:512] == [piece + "</w>" for piece in pieces[:256]]
    assert pieces[0] == "!"
    assert pieces[-2:] == [START, END]


def test_a_caption_is_start_tokens_end_and_zeros(tokenizer):
    tokens = tokenizer.encode(["a red cat", ""])
    assert tokens.dtype == torch.int64
    assert tokens.shape == (2, 8)
    assert tokens[1].tolist() == [tokenizer.start, tokenizer.end, 0, 0, 0, 0, 0, 0]
    assert tokenizer.encode([]).shape == (0, 8)


def test_a_long_caption_is_cut_and_keeps_its_end(tokenizer):
    caption = "a red cat " * 5
    (tokens,) = tokenizer.encode([caption]).tolist()
    assert tokens[:-1] == [tokenizer.start, *tokenizer.encode(["a red cat " * 2])[0, 1:7].tolist()]
    assert tokens[-1] == tokenizer.end
    assert tokenizer.length(caption) == 17
    # The longest that fits is not cut.
    assert tokenizer.decode(tokenizer.encode(["a red cat a red cat"])[0].tolist()) == "a red cat a red cat"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a red cat", "a red cat"),
        ("  A\tRED\n\u00a0Cat ", "a red cat"),
        ("cats, 42!", "cats , 4 2 !"),
        ("it's über 猫🐈", "it 's über 猫 🐈"),
        ("e\u0301", "é"),
        ("!", "!"),
        ("", ""),
    ],
)
def test_decoding_gives_the_words_as_they_were_read(text, read):
    tokenizer = ClipTokenizer.train(CAPTIONS, vocabulary=526, context=40)
    assert tokenizer.decode(tokenizer.encode([text])[0].tolist()) == read


def test_decoding_stops_at_the_first_end(tokenizer):
    (tokens,) = tokenizer.encode(["a cat"]).tolist()
    assert tokenizer.decode([*tokens, *tokens]) == "a cat"
    assert tokenizer.decode(tokens[1:3]) == "a cat"


def test_upper_case_white_space_and_composition_do_not_matter(tokenizer):
    same = tokenizer.encode(["a caf\u00e9", "A  CAFE\u0301 ", "\ta\ncafe\u0301"])
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], same[2])


def test_special_tokens_in_a_caption_are_tokens(tokenizer):
    """As in transformers; the end token of the caption itself still comes last."""
    (tokens,) = tokenizer.encode([f"a {END} b {START}"]).tolist()
    a, b = (tokenizer.encode([letter])[0, 1].item() for letter in "ab")
    assert tokens[:6] == [tokenizer.start, a, tokenizer.end, b, tokenizer.start, tokenizer.end]
    assert tokenizer.length(f"a {END} b {START}") == 6
    assert tokenizer.decode(tokens) == "a"
    again = ClipTokenizer.from_json(tokenizer.to_json())
    assert again.encode([f"a {END}"]).tolist() == tokenizer.encode([f"a {END}"]).tolist()
    assert again.vocabulary == tokenizer.vocabulary


def test_json_round_trip(tokenizer):
    again = ClipTokenizer.from_json(tokenizer.to_json())
    assert again.to_json() == tokenizer.to_json()
    texts = ["a red cat!", "été 7", "🐈"]
    assert torch.equal(again.encode(texts), tokenizer.encode(texts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merges": None}, "not a tokenizer file"),
        ({"merges": [["a"]]}, "not a tokenizer file"),
        ({"merges": [["a", "zz"]]}, "the merges do not fit the vocabulary"),
        ({"context": None}, "not a tokenizer file"),
        ({"context": 1}, "context of 1 tokens has no room"),
        ({"vocabulary": {"a": 0}, "merges": []}, "lacks"),
        ({"vocabulary": 3}, "not a tokenizer file"),
    ],
)
def test_damaged_files_are_refused(tokenizer, change, message):
    data = json.loads(tokenizer.to_json()) | change
    with pytest.raises(ValueError, match=message):
        ClipTokenizer.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}"])
def test_other_files_are_refused(text):
    with pytest.raises(ValueError, match="not a tokenizer file of this project"):
        ClipTokenizer.from_json(text)
