"""CLIP's tokenizer from the files of public formats."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unclip.config import shown
from unclip.errors import ModelError
from unclip.formats.folder import read_json
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.tokenizers.clip import END, START, ClipTokenizer

TOKENIZER = Reference(
    name="CLIPTokenizer",
    honoured=frozenset({"model_max_length", "pad_token", "added_tokens_decoder"})
    | {"additional_special_tokens", "extra_special_tokens"},
    fixed={
        "bos_token": only(START, None),
        "eos_token": only(END, None),
        "padding_side": only("right", None),
        "truncation_side": only("right", None),
    },
    # Every byte is in the vocabulary, so that no token is unknown. Configs carry notes of all kinds.
    inert=frozenset({"unk_token", "vocab", "merges"}),
    closed=False,
)
"""Options of tokenizer_config.json. What tokenizer.json says of normalising and splitting is not read: the class has its own."""


def read_tokenizer(folder: Path, *, context: int | None = None, default: int = 77) -> ClipTokenizer:
    """CLIP's tokenizer from `tokenizer.json`, or from `vocab.json` and `merges.txt`.

    context: tokens of a caption; the folder's own number where it is None, `default` where the folder names none.

    It pads with zeros. Some of these folders' own tokenizers take a "!" of the prompt, which has the number 0, for padding;
    this one does not. Raises `ModelError` for missing or damaged files, for files of two tokenizers, and for tokens that were
    added to the vocabulary.
    """
    settings = _settings(folder)
    if context is None:
        length = settings.get("model_max_length")
        # Files without a limit say 10^30.
        context = length if isinstance(length, int) and 2 <= length <= 4096 else default
    try:
        plain = (folder / "vocab.json").is_file()
        whole = not plain or (folder / "tokenizer.json").is_file()
        data = read_json(folder / "tokenizer.json") if whole else {}
        found = _of_two_files(folder) if plain else _of_one_file(data)
        if plain and whole and _of_one_file(data) != found:
            raise ModelError(
                f"{folder} holds two tokenizers: tokenizer.json and vocab.json with merges.txt differ; remove those that the "
                "model was not trained with"
            )
        _check_added(folder, found[0], settings, data)
        return ClipTokenizer.from_merges(*found, context=context)
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename} is missing: get the model again") from error
    except ModelError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"{folder}: the tokenizer's files are damaged ({error}): get the model again"
        ) from error


Pieces = tuple[dict[str, int], list[tuple[str, str]]]
"""Vocabulary and merges."""


def _of_two_files(folder: Path) -> Pieces:
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
    return read_json(folder / "vocab.json"), [(left, right) for left, right in pairs]


def _of_one_file(data: Mapping[str, Any]) -> Pieces:
    model = data["model"]
    pairs = [tuple(one.split(" ") if isinstance(one, str) else one) for one in model["merges"]]
    return dict(model["vocab"]), [(left, right) for left, right in pairs]


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; {} without one. Raises `ModelError` for an option that tokens depend on and is not supported."""
    file = folder / "tokenizer_config.json"
    found = read_json(file) if file.is_file() else {}
    # Old files describe a token by an object.
    plain = {name: content(value) if name.endswith("_token") else value for name, value in found.items()}
    Options(plain, str(file)).check(TOKENIZER)
    return found


def content(token: Any) -> Any:
    """A token's text, which some files have within an object."""
    return token.get("content") if isinstance(token, Mapping) else token


def _check_added(
    folder: Path, vocabulary: Mapping[str, int], settings: Mapping[str, Any], data: Mapping[str, Any]
) -> None:
    """Raise `ModelError` for a token that is found in captions before they are split, other than start, end and padding."""
    kept = folder / "special_tokens_map.json"
    special = read_json(kept) if kept.is_file() else {}
    beside = folder / "added_tokens.json"
    added = [
        *((folder / "tokenizer.json", content(one)) for one in data.get("added_tokens") or ()),
        *((folder / "tokenizer_config.json", content(one)) for one in _listed(settings)),
        *((beside, one) for one in (read_json(beside) if beside.is_file() else ())),
        *((kept, content(one)) for one in _listed(special)),
    ]
    padding = {content(one.get("pad_token")) for one in (settings, special)}
    for file, token in added:
        if token not in (START, END) and not (token in padding and token in vocabulary):
            raise ModelError(
                f"{file} adds the token {shown(token)} to CLIP's vocabulary, as textual inversion does, which is not supported: "
                "take the model without it"
            )
    for where in (data.get("truncation"), data.get("padding")):
        if isinstance(where, Mapping) and where.get("direction", "Right") != "Right":
            raise ModelError(
                f"{folder / 'tokenizer.json'}: the direction of truncation or padding is {shown(where['direction'])}; this "
                "tokenizer is only known with 'Right'"
            )


def _listed(settings: Mapping[str, Any]) -> list[Any]:
    """Tokens that a config adds."""
    decoder = settings.get("added_tokens_decoder") or {}
    lists = (settings.get(name) or [] for name in ("additional_special_tokens", "extra_special_tokens"))
    further = [one for found in lists for one in (found.values() if isinstance(found, Mapping) else found)]
    return [*decoder.values(), *further]


def find_tokenizer(folder: Path) -> ClipTokenizer:
    """Tokenizer in a folder, or in the folder `tokenizer` inside it."""
    inner = folder / "tokenizer"
    return read_tokenizer(inner if inner.is_dir() else folder)


def tokenizer_at(path: Path) -> ClipTokenizer:
    """Tokenizer in a folder, or from OpenAI's `bpe_simple_vocab_16e6.txt.gz`. Raises `ModelError` for another file."""
    if path.is_dir():
        return find_tokenizer(path)
    try:
        data = path.read_bytes()
        return openai_tokenizer(gzip.decompress(data).decode() if data[:2] == b"\x1f\x8b" else data.decode())
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ModelError(f"{path} is not a list of merges such as OpenAI's: {error}") from error


def openai_tokenizer(text: str) -> ClipTokenizer:
    """CLIP's tokenizer from the merges of `bpe_simple_vocab_16e6.txt`, of which CLIP uses the first 48,894.

    Tokens are numbered: 256 bytes, printable ones first, the same at the end of a word, merges, start, end.
    """
    lines = text.split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines) if right]
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = [byte for byte in range(256) if byte not in printable]
    symbols = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(rest))]
    pieces = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *(left + right for left, right in merges)]
    names = {piece: index for index, piece in enumerate([*pieces, START, END])}
    return ClipTokenizer.from_merges(names, merges, context=77)


def check_tower(tokenizer: ClipTokenizer, vocabulary: int, context: int, where: Path | str) -> None:
    """Raise `ModelError` if a tokenizer gives tokens, or numbers of them, that a text tower does not read."""
    for what, given, read in (
        ("a vocabulary of {} tokens", tokenizer.vocabulary, vocabulary),
        ("captions of {} tokens", tokenizer.context, context),
    ):
        if given > read:
            raise ModelError(
                f"the tokenizer has {what.format(given)}, the text tower of {where} reads {read}: they were not made for each "
                "other"
            )


def check_vocabulary(tokenizer: ClipTokenizer, vocabulary: int, where: Path) -> None:
    """Raise `ModelError` if a text tower has another vocabulary than the tokenizer."""
    if tokenizer.vocabulary != vocabulary:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, the text tower of {where} reads {vocabulary}: "
            "they were not made for each other"
        )
