"""The multilingual tokenizer against transformers' `XLMRobertaTokenizer`."""

import json

import pytest
from transformers import XLMRobertaTokenizer

from unclip.tokenizers.multilingual import MultilingualTokenizer
from unclip.tokenizers.reading import read_tokenizer_json

TEXTS = ["a red cat", "красная машина", "", "ein Kätzchen " * 9, "a <mask> b </s> c"]
CONTEXT = 13


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as transformers writes it, with pieces of its own."""
    letters = sorted({letter for text in TEXTS for letter in text if letter != " "})
    special = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    words = [("▁", -2.0), ("▁red", -3.0), ("▁cat", -3.5), ("на", -4.0), ("▁ein", -4.0)]
    vocabulary = [*special, *words, *((letter, -6.0) for letter in letters if letter != "z"), ("<mask>", 0.0)]
    made = tmp_path_factory.mktemp("tokenizer")
    XLMRobertaTokenizer(vocab=vocabulary, model_max_length=CONTEXT).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def tokenizer(folder) -> MultilingualTokenizer:
    text = (folder / "tokenizer.json").read_text()
    return MultilingualTokenizer.from_backend(text, context=CONTEXT)


def test_tokens(folder, tokenizer):
    theirs = XLMRobertaTokenizer.from_pretrained(folder)
    for text in TEXTS:
        expected = theirs(text, padding="max_length", max_length=CONTEXT, truncation=True).input_ids
        assert tokenizer.encode([text]).tolist() == [expected]
        assert tokenizer.length(text) == len(theirs(text).input_ids)
    assert tokenizer.vocabulary == len(theirs)
    assert tokenizer.length(TEXTS[3]) > CONTEXT


def test_stored_and_read(tokenizer):
    again = read_tokenizer_json(tokenizer.to_json())
    assert isinstance(again, MultilingualTokenizer)
    assert again.to_json() == tokenizer.to_json()
    assert again.encode(TEXTS).equal(tokenizer.encode(TEXTS))


def test_what_is_no_tokenizer(folder):
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        MultilingualTokenizer.from_backend("{}")
    data = json.loads((folder / "tokenizer.json").read_text())
    with pytest.raises(ValueError, match="writes no start and end"):
        MultilingualTokenizer.from_backend(json.dumps(data | {"post_processor": None}))
    with pytest.raises(ValueError, match="not a tokenizer file"):
        read_tokenizer_json('{"kind": "multilingual", "backend": {}, "context": 3}')
