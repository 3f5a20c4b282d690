"""What lies in public folders: weights whole or in shards, tokenizers, configs, the card with the licence.

Only safetensors are opened; where there are none, pickled weights are named, for `unclip convert`.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from unclip.checkpoints.hub import STEMS
from unclip.checkpoints.manifest import PLAIN_NAME, ModelError
from unclip.checkpoints.stream import Stream
from unclip.tokenizers.clip import ClipTokenizer

_VARIANTS = ("", ".fp16")
RedGreenBlue = tuple[float, float, float]

Readers = dict[str, Callable[[], Tensor]]
"""How to read each weight, by prefix and key."""


def weight_files(folder: Path, stems: Sequence[str] = STEMS) -> tuple[Path, ...]:
    """The weights of a component: safetensors before pickles, full precision before half, one file before shards.

    Raises `ModelError` where there are none, or where a shard is missing that the index names.
    """
    for suffix in (".safetensors", ".bin"):
        for stem in stems:
            for variant in _VARIANTS:
                if (file := folder / f"{stem}{variant}{suffix}").is_file():
                    return (file,)
                # Both places of the variant are in use.
                for index in (f"{stem}{suffix}.index{variant}.json", f"{stem}{variant}{suffix}.index.json"):
                    if (folder / index).is_file():
                        return _shards(folder / index)
    raise ModelError(f"{folder} holds no weights: get the model again")


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names, in order."""
    held = read_json(index).get("weight_map")
    names = sorted(set(held.values())) if isinstance(held, dict) and held else []
    if not names or not all(isinstance(name, str) and PLAIN_NAME.fullmatch(name) for name in names):
        raise ModelError(f"{index} is damaged: its weight_map names no files of its folder")
    for name in names:
        if not (index.parent / name).is_file():
            raise ModelError(
                f"{index.parent / name} is missing, which {index.name} names: get the model again"
            )
    return tuple(index.parent / name for name in names)


@contextlib.contextmanager
def open_weights(files: Mapping[str, Sequence[Path]]) -> Iterator[Readers]:
    """How to read each weight of some safetensors files: each prefix stands before the keys of its files.

    Raises `ModelError` for a bad file, and for a weight that two files hold.
    """
    readers: Readers = {}
    homes: dict[str, Path] = {}
    for prefix, file in ((prefix, file) for prefix, several in files.items() for file in several):
        if file.suffix != ".safetensors":
            raise ModelError(f"{file} is pickled, which can hide programs: `unclip convert` reads it safely")
        try:
            stored = Stream(file)
        except FileNotFoundError:
            raise ModelError(f"{file} is missing: get the model again") from None
        except SafetensorError as error:
            raise ModelError(f"{file} is damaged ({error}): get the model again") from error
        for key in stored.names:
            if prefix + key in homes:
                raise ModelError(f"{file} holds the weight {key}, and so does {homes[prefix + key]}")
            homes[prefix + key] = file
            readers[prefix + key] = lambda stored=stored, key=key: stored.get_tensor(key)
    yield readers


def read_tokenizer(folder: Path, *, context: int | None = None) -> ClipTokenizer:
    """CLIP's tokenizer from `tokenizer.json`, or from `vocab.json` and `merges.txt`.

    Unlike the tokenizers of some of these folders it pads with zeros and never takes a "!" of the prompt, which has the
    number 0 there, for padding. Raises `ModelError` where files are missing or damaged.
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
    """The tokenizer in a folder, or in the folder `tokenizer` inside of it."""
    inner = folder / "tokenizer"
    return read_tokenizer(inner if inner.is_dir() else folder)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `ModelError` for a file that is missing or holds anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: get the model again") from None
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}): get the model again") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path} is damaged: it holds no object")
    return data


def licence_of(folder: Path) -> str:
    """What the model card says of the licence, if there is a card."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = re.match(r"---\n(.*?)^---$", text, re.S | re.M)
    # Of what is no common licence ("other"), the name stands in a field of its own.
    found = (
        [re.search(rf"(?m)^{field}: *(\S+)", head[1]) for field in ("license_name", "license")]
        if head
        else []
    )
    return next((one[1] for one in found if one), "")


def normalisation_of(folder: Path) -> tuple[RedGreenBlue, RedGreenBlue] | None:
    """Mean and standard deviation of the pictures that a CLIP in transformers' layout reads, where its folder tells.

    Raises `ModelError` for a file that is damaged.
    """
    for home in (folder, folder / "feature_extractor", folder / "image_processor"):
        file = home / "preprocessor_config.json"
        data = read_json(file) if file.is_file() else {}
        told = {name: data[name] for name in ("image_mean", "image_std") if data.get(name) is not None}
        if not told:
            continue
        numbers = [_three(told.get(name)) for name in ("image_mean", "image_std")]
        if numbers[0] is None or numbers[1] is None:
            raise ModelError(f"{file} is damaged: image_mean and image_std are not three numbers each")
        return numbers[0], numbers[1]
    return None


def _three(values: Any) -> RedGreenBlue | None:
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(isinstance(x, int | float) for x in values)
    ):
        return None
    return float(values[0]), float(values[1]), float(values[2])


def sample_of(file: Path, pieces: int = 16, size: int = 65536) -> bytes:
    """A hash of a file's name and length and of 64 KiB here and there."""
    length = file.stat().st_size
    digest = hashlib.sha256(f"{file.name} {length}".encode())
    with open(file, "rb") as opened:
        for index in range(pieces):
            opened.seek(max(0, length - size) * index // (pieces - 1))
            digest.update(opened.read(size))
    return digest.digest()
