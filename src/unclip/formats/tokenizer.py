"""CLIP's tokenizer from the files of public formats."""

import gzip
from pathlib import Path

from unclip.errors import ModelError
from unclip.formats.folder import read_json
from unclip.tokenizers.clip import END, START, ClipTokenizer


def read_tokenizer(folder: Path, *, context: int | None = None) -> ClipTokenizer:
    """CLIP's tokenizer from `tokenizer.json`, or from `vocab.json` and `merges.txt`.

    It pads with zeros. Some of these folders' own tokenizers take a "!" of the prompt, which has the number 0, for padding;
    this one does not. Raises `ModelError` for missing or damaged files.
    """
    settings = folder / "tokenizer_config.json"
    if context is None:
        length = read_json(settings).get("model_max_length") if settings.is_file() else None
        # Files without a limit say 10^30.
        context = length if isinstance(length, int) and 2 <= length <= 4096 else 77
    try:
        if (folder / "vocab.json").is_file():
            vocabulary = read_json(folder / "vocab.json")
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        else:
            model = read_json(folder / "tokenizer.json")["model"]
            vocabulary = model["vocab"]
            merges = [tuple(one.split(" ") if isinstance(one, str) else one) for one in model["merges"]]
        return ClipTokenizer.from_merges(
            vocabulary, [(left, right) for left, right in merges], context=context
        )
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename} is missing: get the model again") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder}: the tokenizer's files are damaged ({error}): get the model again"
        ) from error


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


def check_vocabulary(tokenizer: ClipTokenizer, vocabulary: int, where: Path) -> None:
    """Raise `ModelError` if a text tower has another vocabulary than the tokenizer."""
    if tokenizer.vocabulary != vocabulary:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, the text tower of {where} reads {vocabulary}: "
            "they were not made for each other"
        )
