"""Models in public formats as model folders of ours: the only way in for pickled weights.

A pickled file is read in a process of its own (`unpickle`), which takes tensors and nothing else; what it wrote is then
read like any safetensors file. The folder is written whole or not at all.
"""

import gzip
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open

from unclip.checkpoints.files import find_tokenizer, open_weights, read_json
from unclip.checkpoints.foreign import (
    KARLO_DEFAULTS,
    Foreign,
    ForeignPart,
    laion_prior,
    recognise,
    space_name,
)
from unclip.checkpoints.io import write_weights
from unclip.checkpoints.manifest import FileEntry, Manifest, ModelError, PartEntry, entry_of, write_folder
from unclip.checkpoints.maps import clip as clip_map
from unclip.checkpoints.maps import karlo_original, laion
from unclip.checkpoints.opened import opened_foreign
from unclip.checkpoints.quantize import Storage
from unclip.checkpoints.unpickle import UNWRITTEN
from unclip.config import to_dict
from unclip.tokenizers.clip import END, START, ClipTokenizer


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    name: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    storage: Storage = "float32",
    licence: str | None = None,
    force: bool = False,
) -> Path:
    """Write the model in `source` as a model folder.

    `source` is a folder in a public format, Karlo's folder of original checkpoints, or a file with OpenAI's CLIP; the
    latter two need a `tokenizer`: a folder that holds one, or OpenAI's `bpe_simple_vocab_16e6.txt.gz`. Raises
    `FileNotFoundError` and `ModelError` for what is not there, unknown or damaged, `FileExistsError` unless `force`.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not force:
        raise FileExistsError(f"{target} exists: choose another name, or ask to overwrite it")
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, where there must be room anyway; temporary folders are often small.
    with tempfile.TemporaryDirectory(prefix=".unclip-", dir=target.absolute().parent) as room:
        found = _find(source, Path(room), None if tokenizer is None else Path(tokenizer))
        found = found.with_files(unpickle(found.pickled, Path(room)))

        def fill(fresh: Path) -> Manifest:
            entries = {}
            for part, foreign in found.parts.items():
                file = fresh / f"{part}.safetensors"
                write_weights(file, foreign.load().state_dict(), storage)
                entries[part] = PartEntry(
                    kind=foreign.kind, config=to_dict(foreign.config), storage=storage, **entry_of(file)
                )
            tokens = None
            if found.tokenizer is not None:
                (fresh / "tokenizer.json").write_text(found.tokenizer().to_json(), encoding="utf-8")
                tokens = FileEntry(**entry_of(fresh / "tokenizer.json"))
            return Manifest(
                name=name or target.name,
                description=f"converted from {found.name}",
                licence=found.licence if licence is None else licence,
                parts=entries,
                tokenizer=tokens,
                defaults=dict(found.defaults),
                space=opened_foreign(found).space(),
            )

        return write_folder(target, fill, force=force)


def unpickle(files: Sequence[Path], room: Path) -> dict[Path, Path]:
    """Pickled files as safetensors in the folder `room`: which has become which.

    Raises `ModelError` for one that is damaged or holds programs, `OSError` where there is no room.
    """
    for file in files:
        if not file.is_file():
            raise ModelError(f"{file} is missing: get the model again")
    made = {
        file: room / f"{index}.safetensors" for index, file in enumerate(files, len(list(room.iterdir())))
    }
    if not made:
        return made
    words = [str(path) for pair in made.items() for path in pair]
    command = [sys.executable, "-m", "unclip.checkpoints.unpickle", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"its reader ended with {done.returncode}"]
        begun = done.stdout.splitlines()
        file = files[max(len(begun) - 1, 0)]
        if done.returncode == UNWRITTEN:
            raise OSError(
                f"what {file} holds could not be written beside the model ({reason[0]}): is there room on the disk?"
            )
        raise ModelError(f"{file} cannot be read as weights: {reason[0]}")
    return made


def _find(source: Path, room: Path, tokenizer: Path | None) -> Foreign:
    if source.is_file():
        return _openai(source, room, tokenizer)
    if not source.is_dir():
        raise FileNotFoundError(f"there is no {source}")
    if next(source.glob(f"{karlo_original.FILES['prior']}*.ckpt"), None) is not None:
        return _original_karlo(source, room, tokenizer)
    if (found := recognise(source)) is None:
        raise ModelError(f"{source} is in no public format that is known here")
    if found.format == "laion" and found.pickled:
        (file,) = found.pickled
        data = read_json(file.with_name(laion.CONFIG))
        found = laion_prior(source, data, unpickle([file], room)[file])
    if tokenizer is not None:
        read = _tokenizer(tokenizer)
        return replace(found, tokenizer=lambda: read)
    return found


def _openai(file: Path, room: Path, tokenizer: Path | None) -> Foreign:
    weights = file if file.suffix == ".safetensors" else unpickle([file], room)[file]
    with open_weights({"": [weights]}) as readers:
        config = clip_map.openai_config({name: read() for name, read in readers.items()}, str(file))
    part = ForeignPart(kind="clip", config=config, table=clip_map.openai_table(), files={"": (weights,)})
    read = _tokenizer(tokenizer)
    _check_vocabulary(read, config.text.vocabulary, file)
    # The one for larger pictures was trained further, and so has embeddings of its own.
    space = space_name(config) if config.vision.size == 224 else ""
    return Foreign(
        format="openai",
        folder=file,
        licence="",
        parts={"clip": part},
        tokenizer=lambda: read,
        space=space,
    )


def _original_karlo(folder: Path, room: Path, tokenizer: Path | None) -> Foreign:
    files = {}
    for name, start in karlo_original.FILES.items():
        candidates = sorted(folder.glob(f"{start}*"))
        if len(candidates) != 1:
            raise ModelError(f"{folder} holds {len(candidates)} files {start}*: Karlo has one")
        files[name] = candidates[0]
    read = _tokenizer(tokenizer)
    safe = unpickle(list(files.values()), room)
    return original_karlo(folder, {name: safe[file] for name, file in files.items()}, read)


def original_karlo(folder: Path, files: Mapping[str, Path], tokenizer: ClipTokenizer) -> Foreign:
    """Karlo's original checkpoints, read to safetensors: `files` are named as in `karlo_original.FILES`."""
    with open_weights({"": [files["clip"]]}) as readers:
        openai = clip_map.openai_config({name: read() for name, read in readers.items()}, str(folder))
    clip = replace(openai, normalize=False)
    _check_vocabulary(tokenizer, clip.text.vocabulary, folder)
    stats = _named_statistics(files["stats"])
    sizes = karlo_original.KARLO
    decoder = karlo_original.decoder_config(sizes, clip, tokenizer.start)
    parts = {
        "clip": ForeignPart(
            kind="clip", config=clip, table=clip_map.openai_table(), files={"": (files["clip"],)}
        ),
        "prior": ForeignPart(
            kind="prior_diffusion",
            config=sizes.prior,
            table=karlo_original.prior_table(sizes.prior),
            files={"prior/": (files["prior"],), "stats/": (stats,)},
        ),
        "decoder": ForeignPart(
            kind="decoder",
            config=decoder,
            table=karlo_original.decoder_table(decoder),
            files={"decoder/": (files["decoder"],), "clip/": (files["clip"],)},
        ),
        "upsampler": ForeignPart(
            kind="upsampler",
            config=sizes.upsampler,
            table=karlo_original.upsampler_table(sizes.upsampler),
            files={"upsampler/": (files["upsampler"],)},
        ),
    }
    return Foreign(
        format="karlo original",
        folder=folder,
        licence="creativeml-openrail-m",
        parts=parts,
        tokenizer=lambda: tokenizer,
        defaults=KARLO_DEFAULTS,
        space=space_name(clip),
    )


def _named_statistics(file: Path) -> Path:
    """The file with its two tensors, a pair of mean and standard deviation, under these names."""
    with safe_open(file, framework="pt") as stored:
        if sorted(stored.keys()) != ["0", "1"]:
            raise ModelError(f"{karlo_original.FILES['stats']} holds no pair of mean and standard deviation")
        named = {"mean": stored.get_tensor("0"), "std": stored.get_tensor("1")}
    target = file.with_name("statistics.safetensors")
    write_weights(target, named)
    return target


def _tokenizer(path: Path | None) -> ClipTokenizer:
    if path is None:
        raise ModelError(
            "these weights come without a tokenizer: give a folder that holds CLIP's, or OpenAI's bpe_simple_vocab_16e6.txt.gz"
        )
    if path.is_dir():
        return find_tokenizer(path)
    try:
        data = path.read_bytes()
        return openai_tokenizer(gzip.decompress(data).decode() if data[:2] == b"\x1f\x8b" else data.decode())
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ModelError(f"{path} is no list of merges such as OpenAI's: {error}") from error


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


def _check_vocabulary(tokenizer: ClipTokenizer, vocabulary: int, where: Path) -> None:
    if tokenizer.vocabulary != vocabulary:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, the text tower of {where} reads {vocabulary}: "
            "they were not made for each other"
        )
