"""Tokenizers of public folders beside transformers': each option, token and file is read as it is there, or refused by name."""

import inspect
import json
import shutil

import pytest
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from unclip.errors import ModelError
from unclip.formats.tokenizer import TOKENIZER, check_tower, read_tokenizer
from unclip.tokenizers.clip import END, START, ClipTokenizer

SYMBOLS = list(bytes_to_unicode().values())
MERGES = [("a", "t</w>"), ("c", "at</w>")]
PIECES = [*SYMBOLS, *(f"{one}</w>" for one in SYMBOLS), *map("".join, MERGES), START, END]
NAMES = {piece: number for number, piece in enumerate(PIECES)}
TEXTS = ("A Cat <concept>, " + END + " b", "a cat", "one two three four five")


@pytest.fixture
def folder(tmp_path):
    """What transformers 5 saves."""
    tokenizer = CLIPTokenizer(vocab=NAMES, merges=MERGES, model_max_length=13)
    tokenizer.save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


def change(folder, name, **values):
    file = folder / name
    found = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(found | values))


def theirs(folder):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    given = tokenizer(list(TEXTS), padding="max_length", max_length=13, truncation=True)
    return given.input_ids


def ours(folder):
    found = read_tokenizer(folder)
    rows = found.encode(list(TEXTS)).tolist()
    # Theirs pads with the end; no tower sees which.
    return [
        row[: found.length(text)] + [found.end] * (13 - found.length(text)) for row, text in zip(rows, TEXTS)
    ]


def test_every_option_of_the_class_is_listed():
    names = set(inspect.signature(CLIPTokenizer.__init__).parameters) - {"self", "kwargs"}
    assert names <= TOKENIZER.options


def test_a_saved_folder_is_read_alike(folder):
    assert ours(folder) == theirs(folder)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("tokenizer_config.json", {"truncation_side": "left"}, "truncation_side is 'left'"),
        ("tokenizer_config.json", {"padding_side": "left"}, "padding_side is 'left'"),
        ("tokenizer_config.json", {"bos_token": "!"}, "bos_token is '!'"),
        ("tokenizer_config.json", {"eos_token": {"content": "a"}}, "eos_token is 'a'"),
        ("tokenizer_config.json", {"extra_special_tokens": ["<concept>"]}, "adds the token '<concept>'"),
        (
            "tokenizer_config.json",
            {"extra_special_tokens": {"own": "<concept>"}},
            "adds the token '<concept>'",
        ),
        ("tokenizer_config.json", {"additional_special_tokens": ["<concept>"]}, "adds the token '<concept>'"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"516": {"content": "<concept>", "special": False}}},
            "adds the token '<concept>'",
        ),
        ("added_tokens.json", {"<concept>": 516}, r"added_tokens\.json adds the token '<concept>'"),
        (
            "special_tokens_map.json",
            {"additional_special_tokens": ["<concept>"]},
            "adds the token '<concept>'",
        ),
        (
            "tokenizer.json",
            {"padding": {"direction": "Left"}},
            "direction of truncation or padding is 'Left'",
        ),
        ("tokenizer.json", {"truncation": {"direction": "Left"}}, "direction of truncation or padding"),
        ("tokenizer.json", {"added_tokens": [{"id": 516, "content": "<concept>"}]}, "adds the token"),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "damaged"),
        ("tokenizer_config.json", {"extra_special_tokens": 5}, "damaged"),
        ("tokenizer.json", {"added_tokens": 5}, "damaged"),
        ("tokenizer.json", {"model": []}, "damaged"),
        ("tokenizer.json", {"model": {"vocab": [1], "merges": []}}, "damaged"),
        ("tokenizer.json", {"model": {"vocab": NAMES, "merges": [["a"]]}}, "damaged"),
    ],
)
def test_what_changes_tokens_is_refused_by_name(folder, name, values, message):
    """Each was read as if it were not there, and prompts became other tokens than the model's own."""
    change(folder, name, **values)
    with pytest.raises(ModelError, match=message) as raised:
        read_tokenizer(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokenizer_config.json", {"do_lower_case": False, "errors": "ignore", "add_prefix_space": True}),
        ("tokenizer_config.json", {"padding_side": "right", "truncation_side": "right"}),
        (
            "tokenizer_config.json",
            {"bos_token": {"__type": "AddedToken", "content": START}, "tokenizer_class": "CLIPTokenizerFast"},
        ),
        ("tokenizer_config.json", {"added_tokens_decoder": {"514": {"content": START, "special": True}}}),
        ("tokenizer.json", {"normalizer": None, "post_processor": None}),
    ],
)
def test_what_changes_no_token_is_read(folder, name, values):
    change(folder, name, **values)
    assert ours(folder) == theirs(folder)


def test_padding_may_be_a_token_of_the_vocabulary(folder):
    """Stable Diffusion 2 pads with "!", which its files list among the added tokens."""
    change(folder, "special_tokens_map.json", pad_token="!")
    change(folder, "tokenizer_config.json", added_tokens_decoder={"0": {"content": "!"}})
    assert read_tokenizer(folder).encode(["a cat"])[0, :2].tolist() == [NAMES[START], NAMES["a</w>"]]


def in_two_files(folder, names=NAMES):
    (folder / "vocab.json").write_text(json.dumps(names))
    lines = ["#version: 0.2", *map(" ".join, MERGES)]
    (folder / "merges.txt").write_text("\r\n".join(lines) + "\n")


def test_files_of_two_tokenizers_are_refused(folder):
    """transformers reads the one, this reader took the other."""
    in_two_files(folder)
    assert ours(folder) == theirs(folder)
    in_two_files(folder, NAMES | {"c</w>": NAMES["d</w>"], "d</w>": NAMES["c</w>"]})
    assert theirs(folder)[1] == ours_of(NAMES)
    with pytest.raises(
        ModelError, match=r"two tokenizers: tokenizer\.json and vocab\.json with merges\.txt differ"
    ):
        read_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    assert read_tokenizer(folder).vocabulary == len(NAMES)


def ours_of(names):
    tokenizer = ClipTokenizer.from_merges(names, MERGES, context=13)
    row = tokenizer.encode([TEXTS[1]])[0].tolist()
    return row[:4] + [tokenizer.end] * 9


def test_a_folder_without_a_limit_has_the_tower_s(folder):
    change(folder, "tokenizer_config.json", model_max_length=10**30)
    assert read_tokenizer(folder).context == 77
    assert read_tokenizer(folder, default=16).context == 16
    shutil.copy(folder / "tokenizer.json", folder.parent / "tokenizer.json")
    assert read_tokenizer(folder.parent, default=16).context == 16


def test_a_tower_reads_all_that_a_tokenizer_gives(folder):
    tokenizer = read_tokenizer(folder)
    check_tower(tokenizer, len(NAMES) + 8, 77, "x")
    with pytest.raises(
        ModelError, match=f"a vocabulary of {len(NAMES)} tokens, the text tower of x reads 500"
    ):
        check_tower(tokenizer, 500, 77, "x")
    with pytest.raises(ModelError, match="captions of 13 tokens, the text tower of x reads 12"):
        check_tower(tokenizer, len(NAMES), 12, "x")
