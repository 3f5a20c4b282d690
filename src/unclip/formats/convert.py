"""Write a model of a public format as a model folder; the only way in for pickled weights.

A pickled file is read in a process of its own (`unpickle`), which takes tensors and nothing else; the result is read
like any safetensors file. The folder is written whole or not at all.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from unclip.checkpoints.foreign import not_weights
from unclip.checkpoints.io import write_weights
from unclip.checkpoints.manifest import FileEntry, Manifest, PartEntry, Space, entry_of, write_folder
from unclip.checkpoints.quantize import Storage
from unclip.config import to_dict
from unclip.errors import ModelError
from unclip.formats import glide
from unclip.formats.opened import open_public
from unclip.formats.public import PublicModel, Reader
from unclip.formats.registry import format_of, what_it_holds
from unclip.formats.tokenizer import tokenizer_at
from unclip.formats.unpickle import UNWRITTEN


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    name: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    storage: Storage = "float32",
    licence: str | None = None,
    prediction: Literal["eps", "v"] | None = None,
    averaged: bool = True,
    force: bool = False,
) -> Path:
    """Write the model in `source` as a model folder.

    `source` is a folder in a public format, a folder of Karlo's or GLIDE's original checkpoints, or a file with OpenAI's
    CLIP or a Stable Diffusion; the latter need a `tokenizer`: a folder that holds one, or OpenAI's
    `bpe_simple_vocab_16e6.txt.gz`. `prediction` says what the network of a single file predicts, and `averaged` whether
    its averaged weights are taken where it holds both. Raises
    `FileNotFoundError` and `ModelError` for a source that is missing, unknown or damaged, `FileExistsError` unless
    `force`.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not force:
        raise FileExistsError(f"{target} exists: choose another name, or ask to overwrite it")
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, where there must be room anyway; temporary folders are often small.
    with tempfile.TemporaryDirectory(prefix=".unclip-", dir=target.absolute().parent) as room:
        reader = Reader(unpickle=partial(unpickle, room=Path(room)), prediction=prediction, averaged=averaged)
        found = _open(source, Path(room), None if tokenizer is None else Path(tokenizer), reader)

        def fill(fresh: Path) -> Manifest:
            entries = {}
            for part, public in found.parts.items():
                file = fresh / f"{part}.safetensors"
                write_weights(file, public.load().state_dict(), storage)
                entries[part] = PartEntry(
                    kind=public.kind, config=to_dict(public.config), storage=storage, **entry_of(file)
                )
            tokens = None
            if found.tokenizer is not None:
                (fresh / "tokenizer.json").write_text(found.tokenizer().to_json(), encoding="utf-8")
                tokens = FileEntry(**entry_of(fresh / "tokenizer.json"))
            own = {}
            for part, read_own in found.tokenizers.items():
                file = fresh / f"{part}_tokenizer.json"
                file.write_text(read_own().to_json(), encoding="utf-8")
                own[part] = FileEntry(**entry_of(file))
            space = open_public(found).space()
            return Manifest(
                name=name or target.name,
                description=f"converted from {found.name}",
                licence=found.licence if licence is None else licence,
                parts=entries,
                tokenizer=tokens,
                tokenizers=own,
                defaults=found.defaults,
                space=Space(name=space.name, fingerprint=space.fingerprint),
            )

        return write_folder(target, fill, force=force)


def _open(source: Path, room: Path, tokenizer: Path | None, reader: Reader) -> PublicModel:
    """The model in `source`, with pickled files written as safetensors in `room`."""
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}")
    form = format_of(source, convert=True)
    if form is None:
        raise ModelError(f"{source} is in no known public format{what_it_holds(source)}")
    read = None
    if tokenizer is not None:
        read = glide.tokenizer_at(tokenizer) if form.tokenizer == "glide" else tokenizer_at(tokenizer)
    found = form.open(source, replace(reader, tokenizer=read))
    if read is not None:
        found = replace(found, tokenizer=lambda: read)
    return found.with_files(unpickle(found.pickled, room))


def unpickle(files: Sequence[Path], room: Path) -> dict[Path, Path]:
    """Write pickled files as safetensors in the folder `room`; returns the new path of each.

    Raises `ModelError` for a file that is damaged or holds programs, `OSError` on a full disk.
    """
    for file in files:
        if not file.is_file():
            raise ModelError(f"{file} is missing: get the model again")
        if found := not_weights(file):
            raise ModelError(f"{file} {found}")
    made = {
        file: room / f"{index}.safetensors" for index, file in enumerate(files, len(list(room.iterdir())))
    }
    if not made:
        return made
    words = [str(path) for pair in made.items() for path in pair]
    command = [sys.executable, "-m", "unclip.formats.unpickle", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:]
        if done.returncode < 0 or not reason:
            reason = [_ended(done.returncode)]
        begun = done.stdout.splitlines()
        file = files[max(len(begun) - 1, 0)]
        if done.returncode == UNWRITTEN:
            raise OSError(
                f"{file} could not be written beside the model as safetensors ({reason[0]}): is there room on the disk?"
            )
        raise ModelError(f"{file} cannot be read as weights: {reason[0]}")
    return made


def _ended(code: int) -> str:
    """Why the reader of a pickled file ended without a word."""
    if code == -getattr(signal, "SIGXCPU", 0):
        return "reading it takes far more time than weights of its size do: it was made to run for ever, or is damaged"
    if code == -getattr(signal, "SIGKILL", 0):
        return "the system ended its reader, most likely for want of memory"
    return f"its reader ended with {code}: it was made to crash, or is damaged"
